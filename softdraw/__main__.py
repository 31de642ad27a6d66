"""``python -m softdraw`` and the ``softdraw`` command."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line; without its extra, say how to get it."""
    try:
        from softdraw.cli import run
    except ModuleNotFoundError as missing:
        if missing.name not in ("typer", "rich"):
            raise
        print(f"softdraw: the command line needs {missing.name}: pip install 'softdraw[cli]'", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:  # before a command has begun
        raise SystemExit(130) from None
    raise SystemExit(run())


if __name__ == "__main__":
    main()
