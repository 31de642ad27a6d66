#!/usr/bin/env python3
"""What pre-commit runs: the doctor of this checkout, in an environment that the first run makes in this folder.

pre-commit keeps the checkout in its own cache, one for each revision, so the environment is deleted with it.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
ENVIRONMENT = HERE / f".environment-{sys.version_info[0]}.{sys.version_info[1]}"


def python(environment: Path) -> Path:
    return environment / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def install() -> None:
    """Make the environment under another name and move it here, so that a broken installation is not taken for one."""
    with tempfile.TemporaryDirectory(dir=HERE, prefix=".installing-", ignore_cleanup_errors=True) as place:
        new = Path(place) / "environment"
        subprocess.run([sys.executable, "-m", "venv", new], check=True)
        subprocess.run([python(new), "-m", "pip", "install", "-q", "--disable-pip-version-check", HERE], check=True)
        try:
            new.replace(ENVIRONMENT)
        except OSError:  # another run was quicker
            if not python(ENVIRONMENT).exists():
                raise


def main() -> int:
    if not python(ENVIRONMENT).exists():
        install()
    return subprocess.run([python(ENVIRONMENT), "-m", "softdraw_doctor", *sys.argv[1:]]).returncode


if __name__ == "__main__":
    raise SystemExit(main())
