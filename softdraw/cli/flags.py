"""What the command line calls the arguments and settings that an error of the library names in backticks."""

from __future__ import annotations

import re

FLAGS = {
    "data": "--data",
    "groups": "--latents",
    "categories": "--latents",
    "length": "--length",
    "width": "--width",
    "layers": "--layers",
    "experts": "--experts",
    "rule": "--rule",
    "rules": "--rules",
    "tau_start": "--tau",
    "tau_end": "--tau",
    "schedule": "--schedule",
    "sizes": "--sizes",
    "epochs": "--epochs",
    "batch_size": "--batch",
    "learning_rate": "--lr",
    "seed": "--seed",
    "seeds": "--seeds",
    "device": "--device",
    "texts": "--texts",
    "steps": "--steps",
    "temperature": "--temperature",
    "order": "--order",
    "out": "--out",
    "resume": "--resume",
}


def with_flags(message: str) -> str:
    """The message with flags for names; two that one flag stands for, as in "`tau_start`:`tau_end`", are one flag.

    Example:
        >>> with_flags("`groups` x `categories` must be at least 1x2, got 0x10")
        '--latents must be at least 1x2, got 0x10'
    """
    message = re.sub(r"`(\w+)`", lambda found: FLAGS.get(found[1], found[0]), message)
    return re.sub(r"(--[a-z]+)(?: x |:)\1\b", r"\1", message)


def line(message: str) -> str:
    """What is printed on standard error when a command ends because of ``message``."""
    return "softdraw: " + " ".join(with_flags(message).split())
