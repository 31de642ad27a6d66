"""The threads that draws run on: many callers, forks, where workers may run, and torch's own OpenMP threads."""

from __future__ import annotations

import os
import re
import sys
import threading
import time

import pytest
import torch
from processes import run

import softdraw
from softdraw.kernels import native, openmp

pytestmark = pytest.mark.skipif(native.library() is None, reason="the kernels are not compiled here")
linux = pytest.mark.skipif(sys.platform != "linux", reason="affinity, and OpenMP with two threads, are tested on Linux")
two_cpus = pytest.mark.skipif(len(getattr(os, "sched_getaffinity", lambda _: "x")(0)) < 2, reason="needs two CPUs")
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


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_data_loader_worker_draws_after_the_parent_did(two_threads):
    draw()  # starts the pool, whose threads a forked worker does not have
    loader = torch.utils.data.DataLoader(Draws(), num_workers=2, timeout=30, multiprocessing_context="fork")
    for i, item in enumerate(loader):
        assert torch.equal(item[0], softdraw.gumbel_softmax(LOGITS, seed=i))


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


AFFINITY = """
import os, time, torch, softdraw
from softdraw.kernels import native
native.library().softdraw_use_openmp(None)
softdraw.gumbel_softmax(torch.zeros(2, 3), seed=0), time.sleep(0.5)  # the check's own threads come and go
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


@linux
@two_cpus
def test_workers_keep_off_the_cpu_of_their_caller():
    """Where a wake-up after a pause would wait for its waker; tried several times, since the caller may move."""
    run(AFFINITY)


OPENMP = """
import os, time, torch, softdraw
torch.set_num_threads(2)
x, busy = torch.zeros(4000, 100), torch.zeros(2**20)

def threads():
    return set(os.listdir("/proc/self/task"))

def nanoseconds(thread):
    return int(open(f"/proc/self/task/{thread}/schedstat").read().split()[0])

def works(worker):
    before = nanoseconds(worker)
    assert torch.equal(softdraw.gumbel_softmax(x, seed=0), first)
    return nanoseconds(worker) > before

def works_after_torch(worker):
    busy.exp()
    return works(worker)

busy.exp()  # starts torch's threads
softdraw.gumbel_softmax(torch.zeros(2, 3), seed=0), time.sleep(0.5)  # the check's own threads come and go
before = threads()
first = softdraw.gumbel_softmax(x, seed=0)
for attempt in range(10):
    time.sleep(0.5)  # torch's threads fall asleep
    softdraw.gumbel_softmax(x, seed=0)
    if threads() != before:
        break
(worker,) = threads() - before  # the pool's
assert any(time.sleep(0.5) or works(worker) for _ in range(10))
for batch in range(40):  # on a busy machine another process may be where torch's thread would spin
    late = sum(works_after_torch(worker) for _ in range(20))
    if late <= 4:
        break
assert late <= 4, late
"""


@linux
@two_cpus
def test_work_goes_to_torchs_threads_while_they_are_awake():
    """After an operation of torch's own they spin on the CPUs that the pool's worker needs; asleep, they are let be."""
    run(OPENMP)


ALONE = """
import os, time, torch, softdraw
torch.set_num_threads(2)
x, busy = torch.zeros(4000, 100), torch.zeros(2**20)
busy.exp()
softdraw.gumbel_softmax(torch.zeros(2, 3), seed=0), time.sleep(0.5)  # the check's own threads come and go
before = set(os.listdir("/proc/self/task"))
softdraw.gumbel_softmax(x, seed=0)
assert len(set(os.listdir("/proc/self/task")) - before) == 1  # the pool's
"""


@linux
@pytest.mark.parametrize(("limit", "value"), [("OMP_THREAD_LIMIT", "1"), ("OMP_STACKSIZE", "32K")])
def test_where_openmp_can_not_help_the_pool_does(limit, value):
    """With no threads, or with too small stacks for a draw."""
    run(ALONE, **{limit: value})


MANY = """
import os, threading, torch, softdraw
torch.set_num_threads(4)
x = torch.zeros(4000, 100)
softdraw.gumbel_softmax(x, seed=0)
before, here = len(os.listdir("/proc/self/task")), threading.Barrier(6)

def work():
    torch.set_num_threads(4)
    softdraw.gumbel_softmax(x, seed=0)
    here.wait()
    if threading.current_thread() is threads[0]:
        print(len(os.listdir("/proc/self/task")) - before)
    here.wait()

threads = [threading.Thread(target=work) for _ in range(6)]
for thread in threads:
    thread.start()
"""


@linux
def test_threads_that_only_draw_have_no_openmp_threads_each():
    """Six of them add themselves, and the pool's three workers at most."""
    assert int(run(MANY)) <= 6 + 3


FORKED = """
import os, signal, time, torch
torch.set_num_threads(2)
x = torch.zeros(4000, 100)
torch.zeros(2**20).exp()  # OpenMP's threads are the parent's alone
child = os.fork()
if child == 0:
    import softdraw
    sums = softdraw.gumbel_softmax(x, seed=0).numpy().sum(1)
    os._exit(0 if abs(sums - 1).max() < 1e-5 else 1)
deadline = time.monotonic() + 30
while not (ended := os.waitpid(child, os.WNOHANG))[0] and time.monotonic() < deadline:
    time.sleep(0.01)
if not ended[0]:
    os.kill(child, signal.SIGKILL)
assert ended[0] and ended[1] == 0, ended
"""


@linux
def test_a_child_that_was_forked_before_the_import_does_not_wait_for_threads_of_its_parent():
    run(FORKED)


@linux
def test_a_process_whose_name_is_not_text():
    """The kernel cuts names off after 15 bytes, wherever that is; where nothing can be read, threads are our own."""
    run(
        "import ctypes, torch, softdraw\n"
        "ctypes.CDLL(None).prctl(15, b'py-\\xe6\\xa8')\n"
        "from softdraw.kernels import openmp\n"
        "assert not openmp._forked() and openmp.team()\n"
        "softdraw.gumbel_softmax(torch.zeros(2, 3))\n"
        "openmp.Path = lambda _: open('/nowhere')\n"
        "assert openmp.team() is None\n"
        "assert openmp.why_not() == 'this process is a fork, whose parent may have kept torch\\'s'\n"
    )


OFF = """
import os, time, torch, softdraw
torch.set_num_threads(2)
x, busy = torch.zeros(4000, 100), torch.zeros(2**20)
busy.exp()  # starts torch's threads
softdraw.gumbel_softmax(torch.zeros(2, 3), seed=0), time.sleep(0.5)  # the check's own threads come and go
others = {t for t in os.listdir("/proc/self/task") if int(t) != os.getpid()}
first, before = softdraw.gumbel_softmax(x, seed=0), set(os.listdir("/proc/self/task"))
for _ in range(20):
    busy.exp()  # while they are awake
    assert torch.equal(softdraw.gumbel_softmax(x, seed=0), first)
print(len(set(os.listdir("/proc/self/task")) - others) - 1)
"""


@linux
@two_cpus
def test_the_variable_turns_torchs_threads_off():
    """The pool's own worker is started although torch's threads are awake; without the variable these do the work."""
    assert int(run(OFF, SOFTDRAW_OPENMP="0")) == 1


def test_the_variable_is_read_as_0_or_1(monkeypatch):
    for value in ("1", ""):
        monkeypatch.setenv("SOFTDRAW_OPENMP", value)
        assert "SOFTDRAW_OPENMP" not in openmp.why_not()
        assert (openmp.team() is None) == bool(openmp.why_not())
    monkeypatch.setenv("SOFTDRAW_OPENMP", "0")
    assert openmp.team() is None
    assert openmp.why_not() == "SOFTDRAW_OPENMP=0"
    monkeypatch.setenv("SOFTDRAW_OPENMP", "off")
    with pytest.raises(ValueError, match=r"SOFTDRAW_OPENMP must be 0 .* or 1 .*, got 'off'"):
        openmp.team()


def test_info_says_whose_threads_draws_run_on():
    info = "from softdraw.cli.info import info; info()"
    said = run(info, SOFTDRAW_OPENMP="0")
    assert re.search(r"^threads +\d+ \(its own: SOFTDRAW_OPENMP=0\)$", said, re.MULTILINE)
    if not openmp.why_not():
        assert "(its own, or torch's OpenMP threads while they are awake)" in run(info)
