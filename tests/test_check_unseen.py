"""The comparison of a fast body with plain torch before its first use: the rest of the process does not notice it."""

from __future__ import annotations

import contextlib
import sys

import pytest
import torch
from processes import run, run_forked
from torch.utils._python_dispatch import TorchDispatchMode
from unasked import unasked  # noqa: F401

import softdraw
from softdraw import kernels
from softdraw.kernels import check, cpu, native

CPU = torch.device("cpu")
compiled = pytest.mark.skipif(native.library() is None, reason="the kernels are not compiled here")


@compiled
def test_the_check_takes_milliseconds_and_imports_nothing():
    """At most 50 ms of the processor's time, 10 to 20 on an idle machine; once a process and dtype."""
    code = (
        "import sys, time, torch\n"
        "from softdraw.kernels import check, cpu, native\n"
        "native.library()\n"
        "before, t = set(sys.modules), time.process_time()\n"
        "assert check.disagreement(cpu, torch.device('cpu'), torch.float32) is None\n"
        "print(time.process_time() - t, *(set(sys.modules) - before))\n"
    )
    for _ in range(3):
        took, *imported = run(code).split()
        assert imported == []
        if float(took) < 0.05:
            break
    assert float(took) < 0.05


QUIET = """
import os, time, torch, softdraw
from softdraw import kernels
threads = lambda: len(os.listdir("/proc/self/task"))
torch.set_num_threads(4)
torch.manual_seed(7)
state, before = torch.get_rng_state(), threads()
for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.float16):
    softdraw.gumbel_softmax(torch.zeros(2, 3, dtype=dtype), seed=1)
assert len(kernels._agreed) == 4
assert torch.equal(torch.get_rng_state(), state)
end = time.monotonic() + 10
while threads() > before and time.monotonic() < end:
    time.sleep(0.01)  # those of the check are about to end
assert threads() == before, threads()
"""

FORKED = """
import os, signal, time, torch, softdraw
from softdraw import kernels
torch.set_num_threads(4)
torch.zeros(2**20).log().max(-1)  # OpenMP's threads are the parent's alone
x = torch.zeros(2, 3)
child = os.fork()
if child == 0:
    y = softdraw.gumbel_softmax(x, hard=True, seed=0)
    os._exit(0 if len(kernels._agreed) == 1 and not kernels._refused else 1)
deadline = time.monotonic() + 30
while not (ended := os.waitpid(child, os.WNOHANG))[0] and time.monotonic() < deadline:
    time.sleep(0.01)
if not ended[0]:
    os.kill(child, signal.SIGKILL)
assert ended[0] and ended[1] == 0, ended
"""


@compiled
@pytest.mark.skipif(sys.platform != "linux", reason="counts threads in /proc, and forks")
@pytest.mark.parametrize("code", [QUIET, FORKED], ids=["quiet", "forked"])
def test_the_check_leaves_no_thread_draws_from_no_generator_and_works_in_a_fork(code):
    """In a child that was forked after torch had used OpenMP, plain torch hangs on the thread that forked."""
    run_forked(code)


@compiled
@pytest.mark.usefixtures("unasked")
def test_the_check_asks_where_no_thread_can_be_started(monkeypatch):
    monkeypatch.setattr(check, "ThreadPoolExecutor", _no_thread)
    assert kernels.body(CPU) is cpu


def _no_thread(*_):
    raise RuntimeError("can't start new thread")


class Recording(TorchDispatchMode):
    """Records every operation."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.seen.append(str(function))
        return function(*args, **(kwargs or {}))


def _saving(packed: list):
    return torch.autograd.graph.saved_tensors_hooks(lambda x: packed.append(x) or x, lambda x: x)


def soft(x):
    return softdraw.gumbel_softmax(x, seed=1)


@contextlib.contextmanager
def _deterministic():
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


FIRST_DRAWS = {
    "inference mode": lambda x: torch.inference_mode()(soft)(x),
    "no grad": lambda x: torch.no_grad()(soft)(x),
    "with a gradient": lambda x: soft(x)[:, 0].sum().backward(),
    "vmap": lambda x: torch.vmap(soft)(x.detach()),
    "torch.func.grad": lambda x: torch.func.grad(lambda x: soft(x)[:, 0].sum())(x.detach()),
    "compiled": lambda x: torch.compile(soft, backend="aot_eager", fullgraph=True)(x),
}
AROUND = {
    "another default device": lambda: torch.device("meta"),
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "anomaly": lambda: torch.autograd.detect_anomaly(check_nan=False),
    "inference mode": torch.inference_mode,
    "deterministic": _deterministic,
}


@compiled
@pytest.mark.usefixtures("unasked")
@pytest.mark.filterwarnings("ignore:Anomaly Detection")
@pytest.mark.parametrize("around", [None, *AROUND])
@pytest.mark.parametrize("first", FIRST_DRAWS)
def test_a_first_draw_anywhere_asks_and_disturbs_nothing(first, around):
    """Whatever mode the process is in, the check passes, and the gradient after it is that of the softmax."""
    if around == "inference mode" and first in ("with a gradient", "torch.func.grad"):
        pytest.skip("torch has no gradient there, nor has torch.func in torch 2.6")
    x = torch.linspace(-1, 1, 12).view(3, 4).requires_grad_()
    with AROUND[around]() if around else contextlib.nullcontext():
        FIRST_DRAWS[first](x)
    assert kernels._agreed == {("cpu", torch.float32)}, kernels._refused
    y = soft(x)
    (dx,) = torch.autograd.grad(y[:, 0].sum(), x)
    p = y.detach()
    torch.testing.assert_close(dx, p * ((torch.arange(4) == 0).float() - p[:, :1]))


@compiled
@pytest.mark.usefixtures("unasked")
def test_what_looks_on_does_not_see_the_check():
    packed, x = [], torch.zeros(3, 4, requires_grad=True)
    with Recording() as mode, _saving(packed):
        soft(x)
    assert kernels._agreed == {("cpu", torch.float32)}
    assert len(packed) <= 2  # y, by the operator that the mode makes necessary
    assert len(mode.seen) < 5, mode.seen


@compiled
@pytest.mark.usefixtures("unasked")
def test_another_default_dtype_is_no_matter():
    torch.set_default_dtype(torch.float64)
    try:
        soft(torch.zeros(2, 3, dtype=torch.float32))
    finally:
        torch.set_default_dtype(torch.float32)
    assert kernels._agreed == {("cpu", torch.float32)}, kernels._refused
