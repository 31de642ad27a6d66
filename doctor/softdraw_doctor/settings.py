"""``[tool.softdraw.doctor]`` in the nearest pyproject.toml: select, ignore, exclude."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from softdraw_doctor.errors import InputError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pyright: ignore[reportMissingImports]

_KEYS = ("select", "ignore", "exclude")


@dataclass(frozen=True)
class Settings:
    select: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()


def load(start: Path) -> Settings:
    """The settings that hold at ``start``: those of the first pyproject.toml above it that has the section."""
    for folder in (start.resolve(), *start.resolve().parents):
        file = folder / "pyproject.toml"
        if not file.is_file():
            continue
        try:
            tables = tomllib.loads(file.read_text(encoding="utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise InputError(f"{file} is not TOML: {error}") from None
        section = tables.get("tool", {}).get("softdraw", {}).get("doctor")
        if section is not None:
            return _settings(section, file)
    return Settings()


def _settings(section: dict, file: Path) -> Settings:
    for key, value in section.items():
        if key not in _KEYS:
            raise InputError(f"{file}: [tool.softdraw.doctor] has no {key}: the keys are {', '.join(_KEYS)}")
        if not (isinstance(value, list) and all(isinstance(v, str) for v in value)):
            raise InputError(f"{file}: {key} in [tool.softdraw.doctor] must be a list of strings, got {value!r}")
    return Settings(**{key: tuple(value) for key, value in section.items()})
