"""The compiled kernels in a process: forks, threads, memory, import time, compilations, and a machine without them."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time

import pytest
import torch
from torch._dynamo.testing import CompileCounter

import softdraw
from softdraw import kernels
from softdraw.kernels import native

compiled = pytest.mark.skipif(native.library() is None, reason="the kernels are not compiled here")
BIG = (4000, 100)  # enough rows for the pool to work


LOGITS = torch.zeros(BIG)


def draw() -> bytes:
    """A draw as bytes, since in a forked child torch's own kernels hang: OpenMP's threads are gone."""
    return softdraw.gumbel_softmax(LOGITS, seed=3).numpy().tobytes()


class Draws(torch.utils.data.Dataset):
    """Items that are draws, made in whichever process asks."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, i: int) -> torch.Tensor:
        return softdraw.gumbel_softmax(LOGITS, seed=i)


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@compiled
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_data_loader_worker_draws_after_the_parent_did(two_threads):
    draw()  # starts the pool, whose threads a forked worker does not have
    loader = torch.utils.data.DataLoader(Draws(), num_workers=2, timeout=30, multiprocessing_context="fork")
    for i, item in enumerate(loader):
        assert torch.equal(item[0], softdraw.gumbel_softmax(LOGITS, seed=i))


@compiled
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_fork_in_the_middle_of_a_draw(two_threads):
    """The child draws although another thread held the pool when it was made."""
    expected, stop = draw(), threading.Event()

    def busy() -> None:
        while not stop.is_set():
            draw()

    other = threading.Thread(target=busy)
    other.start()
    try:
        for _ in range(5):
            child = os.fork()
            if child == 0:
                os._exit(0 if draw() == expected else 1)
            deadline, status = time.monotonic() + 30, None
            while status is None and time.monotonic() < deadline:
                pid, code = os.waitpid(child, os.WNOHANG)
                status = code if pid else time.sleep(0.005)
            if status is None:
                os.kill(child, 9)
            assert status == 0
    finally:
        stop.set()
        other.join()


@compiled
def test_many_threads_draw_at_once(two_threads):
    expected, wrong = draw(), []

    def work() -> None:
        wrong.extend(i for i in range(10) if draw() != expected)

    workers = [threading.Thread(target=work) for _ in range(6)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert wrong == []


def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **environment}, capture_output=True, text=True, check=True
    )


AFFINITY = """
import os, torch, softdraw
torch.set_num_threads(1)  # so that every other thread is the pool's
before = {int(t) for t in os.listdir("/proc/self/task")}
x = torch.zeros(4000, 100)
torch.set_num_threads(2)
for _ in range(20):
    softdraw.gumbel_softmax(x, seed=0)
    here = int(open("/proc/self/stat").read().rpartition(")")[2].split()[36])
    workers = {int(t) for t in os.listdir("/proc/self/task")} - before
    allowed = [os.sched_getaffinity(t) for t in workers]
    if allowed and all(here not in a for a in allowed):
        break
print(len(os.sched_getaffinity(0)), here, [sorted(a) for a in allowed])
assert any(a == os.sched_getaffinity(0) - {here} for a in allowed)
"""


@compiled
@pytest.mark.skipif(sys.platform != "linux", reason="affinity is Linux's")
@pytest.mark.skipif(len(getattr(os, "sched_getaffinity", lambda _: "x")(0)) < 2, reason="needs two CPUs")
def test_workers_keep_off_the_cpu_of_their_caller():
    """Where a wake-up after a pause would wait for its waker; tried several times, since the caller may move."""
    run(AFFINITY)


MEMORY = """
import torch
from softdraw.bench.memory import extra_bytes
import softdraw
torch.set_num_threads(2)
wide, narrow = torch.zeros(64, 131072), torch.zeros(2**20, 8)
for x, draw in (
    (wide, lambda x: softdraw.gumbel_softmax(x, tau=.5, seed=0)),
    (wide, lambda x: softdraw.gumbel_softmax(x, tau=.5, hard=True, seed=0)),
    (wide.bfloat16(), lambda x: softdraw.gumbel_softmax(x, tau=.5, seed=0)),
    (narrow, lambda x: softdraw.gumbel_softmax(x, tau=.5, seed=0)),
    (wide, lambda x: softdraw.gumbel_max(x, seed=0)),
):
    draw(x[:8])
    print(len(x), extra_bytes(lambda: draw(x)))
"""


@compiled
@pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's peak resident size")
def test_extra_memory():
    """The output, 16 bytes a row, and what two threads need: the process's peak, which no allocator hides from."""
    lines = run(MEMORY).stdout.splitlines()
    assert len(lines) == 5
    for rows, extra in (map(int, line.split()) for line in lines):
        assert extra <= 16 * rows + 2 * 2**20


def test_importing_softdraw_costs_little_more_than_torch():
    """At most 100 ms over torch, in the processor's time; the best of several, since a busy machine only ever adds."""
    code = "import torch, time; t = time.process_time(); import softdraw; print(time.process_time() - t)"
    assert min(float(run(code).stdout) for _ in range(3)) < 0.1


def test_import_loads_nothing_heavy():
    loaded = run("import softdraw, sys; print(*sys.modules)").stdout.split()
    assert not {"typer", "rich", "matplotlib", "sklearn", "libcst", "triton"} & set(loaded)


def test_without_the_library_the_reference_runs_and_says_so(tmp_path):
    """As after an install without a compiler: one warning, the same draws, and a line that says why."""
    code = (
        "import warnings, torch, softdraw\n"
        "from softdraw import kernels\n"
        "from softdraw.kernels import native\n"
        "native._path = lambda: None\n"
        "with warnings.catch_warnings(record=True) as seen:\n"
        "    warnings.simplefilter('always')\n"
        "    x = torch.zeros(2, 3)\n"
        "    softdraw.gumbel_softmax(x, seed=0), softdraw.gumbel_softmax(x, hard=True, seed=0)\n"
        "print([w.category.__name__ for w in seen if 'plain torch' in str(w.message)])\n"
        "print(kernels.body(x.device).__name__, kernels.reason(x.device))\n"
    )
    lines = run(code, SOFTDRAW_LIBRARY="").stdout.splitlines()
    assert lines[0] == "['RuntimeWarning']"
    assert lines[1].startswith("softdraw.kernels.reference")
    assert "C++17 compiler" in lines[1]


@compiled
def test_the_compiled_body_runs_here():
    assert kernels.body(torch.device("cpu")).__name__ == "softdraw.kernels.cpu"
    assert native.isa() in kernels.reason(torch.device("cpu"))
    with pytest.raises(ValueError, match="no kernels for 'x86-64-v9'"):
        native.use_isa("x86-64-v9")


@pytest.mark.parametrize(("as_tensor", "frames"), [(True, 1), (False, 2)])
def test_an_annealed_tau_recompiles_nothing(as_tensor, frames):
    """A tensor tau compiles once. A float is a constant to dynamo at first and a variable from its second value on."""
    torch._dynamo.reset()
    counter = CompileCounter()
    function = torch.compile(softdraw.gumbel_softmax, backend=counter, fullgraph=True)
    for step in range(6):
        tau = 1.0 / (1 + step)
        function(torch.zeros(4, 3), torch.tensor(tau) if as_tensor else tau)
    assert counter.frame_count == frames
