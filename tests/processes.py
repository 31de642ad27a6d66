"""Code that runs in a process of its own."""

import os
import subprocess
import sys


def run(code: str, **environment: str) -> str:
    """What the code prints; it must end well within two minutes."""
    command, around = [sys.executable, "-c", code], {**os.environ, **environment}
    return subprocess.run(command, env=around, check=True, timeout=120, stdout=subprocess.PIPE, text=True).stdout
