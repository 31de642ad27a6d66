"""Code that runs in a process of its own."""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

# The command line with a SIGKILL at the n-th fsync. A write is two: the new file, then, renamed, its folder.
_KILLED = """
import os, signal, sys
from softdraw.cli import run
fsync, left = os.fsync, int(sys.argv[1])
def counted(handle):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    fsync(handle)
os.fsync = counted
run(sys.argv[2:])
"""


def run(code: str, **environment: str) -> str:
    """What the code prints; it must end well within two minutes."""
    command, around = [sys.executable, "-c", code], {**os.environ, **environment}
    return subprocess.run(command, env=around, check=True, timeout=120, stdout=subprocess.PIPE, text=True).stdout


def killed(syncs: int, arguments: Sequence[str]) -> None:
    """The command line ``softdraw`` with these arguments, killed at its n-th fsync."""
    around = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", _KILLED, str(syncs), *arguments]
    assert subprocess.run(command, env=around, capture_output=True, timeout=120).returncode == -signal.SIGKILL


def torchrun(count: int, arguments: Sequence[str], check: bool = True) -> subprocess.CompletedProcess[str]:
    """The command line ``softdraw`` with these arguments, on so many ranks."""
    around = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr", "127.0.0.1"]
    command = [*launcher, "--nproc-per-node", str(count), "-m", "softdraw", *arguments]
    ended = subprocess.run(command, env=around, capture_output=True, text=True, timeout=120)
    assert not check or ended.returncode == 0, ended.stderr
    return ended
