"""Code that runs in a process of its own."""

import contextlib
import io
import multiprocessing
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Sequence
from multiprocessing.connection import Connection
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


def run_forked(code: str, **environment: str) -> str:
    """As ``run``, in a fork of a process that has imported torch and nothing else: a tenth of a second, not two."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return run(code, **environment)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch"])
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_execute, args=(code, environment, sender))
    child.start()
    sender.close()
    with receiver:
        said = receiver.recv() if receiver.poll(120) else ""
    child.join(20)
    assert child.exitcode == 0, said
    child.close()
    return said


def _execute(code: str, environment: dict[str, str], sender: Connection) -> None:
    assert "softdraw" not in sys.modules
    os.environ.update(environment)
    sys.argv = [""]
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said):
            exec(compile(code, "<forked>", "exec"), {"__name__": "__main__"})
    except BaseException:
        said.write(traceback.format_exc())
        raise
    finally:
        sender.send(said.getvalue())


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
