"""``python -m softdraw_doctor`` and the ``softdraw-doctor`` command."""

from __future__ import annotations


def main() -> None:
    """Run the command line."""
    try:
        from softdraw_doctor.command import run
    except KeyboardInterrupt:  # before the command has begun
        raise SystemExit(130) from None
    raise SystemExit(run())


if __name__ == "__main__":
    main()
