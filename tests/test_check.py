"""The comparison of a fast kernel body with plain torch before its first use: it finds faults, and no mode of torch
notices it."""

from __future__ import annotations

import contextlib
import sys
from types import SimpleNamespace

import pytest
import torch
from processes import run
from torch.utils._python_dispatch import TorchDispatchMode
from unasked import unasked  # noqa: F401

import softdraw
from softdraw import kernels
from softdraw.arguments import KernelRule
from softdraw.kernels import check, cpu, native, reference

CPU = torch.device("cpu")
compiled = pytest.mark.skipif(native.library() is None, reason="the kernels are not compiled here")


def test_right_bodies_agree():
    for body in (reference, *([cpu] if native.library() else [])):
        for dtype in cpu.DTYPES:
            assert check.disagreement(body, CPU, dtype) is None


def _broken(name: str, change) -> SimpleNamespace:
    """The reference with one operation changed: ``change(right, *arguments)`` instead of ``right(*arguments)``."""
    body = SimpleNamespace(
        **{operation: getattr(reference, operation) for operation in (*native.OPERATIONS, "hard_index", "drawn")}
    )
    setattr(body, name, lambda *arguments: change(getattr(reference, name), *arguments))
    return body


def _as_it_is(right, *arguments):
    return right(*arguments)


def _nudged(right, *arguments):
    """One element is another: the last one of the last row."""
    out = right(*arguments).clone()
    out.view(-1)[-1] += 1 if not out.is_floating_point() else 2**-5
    return out


@pytest.mark.parametrize("dtype", list(cpu.DTYPES))
@pytest.mark.parametrize("name", native.OPERATIONS)
def test_one_wrong_element_of_one_operation_is_seen(name, dtype):
    assert check.disagreement(_broken(name, _nudged), CPU, dtype).startswith(f"{name} of 5x10 in {dtype} differs")


@pytest.mark.parametrize("part", [0, 1])
def test_a_wrong_one_hot_and_a_wrong_index_of_a_draw_for_rules_are_seen(part):
    def nudged(right, *arguments):
        return tuple(_nudged(lambda x=x: x) if i == part else x for i, x in enumerate(right(*arguments)))

    assert check.disagreement(_broken("hard_index", nudged), CPU, torch.float32).startswith("hard_index of 5x10")


@pytest.mark.parametrize("part", [0, 1, 2])
def test_a_wrong_index_or_number_of_a_law_is_seen(part):
    def nudged(right, *arguments):
        return tuple(_nudged(lambda x=x: x) if i == part else x for i, x in enumerate(right(*arguments)))

    assert check.disagreement(_broken("drawn", nudged), CPU, torch.float32).startswith("drawn of 5x10")


@pytest.mark.parametrize("rule", native.RULES)
@pytest.mark.parametrize("name", ["rule_backward", "bits_backward"])
def test_a_wrong_gradient_of_one_rule_is_seen(name, rule):
    def nudged(right, *arguments):
        asked = next(x.name for x in arguments if isinstance(x, KernelRule))
        return (_nudged if asked == rule else _as_it_is)(right, *arguments)

    assert check.disagreement(_broken(name, nudged), CPU, torch.float32).startswith(f"{name} of 5x10")


@pytest.mark.parametrize("cols", [10, 100, 600, 1104])
def test_every_width_is_asked(cols):
    wrong = _broken("hard", lambda right, draw: (_nudged if draw.logits.shape[-1] == cols else _as_it_is)(right, draw))
    assert f"x{cols} in torch.float32" in check.disagreement(wrong, CPU, torch.float32)


LEFT_OUT = {"tau": 1.0, "rows": None, "mask": None, "col_start": 0}  # what a wrong body could leave out of a Draw


@pytest.mark.parametrize("left_out", LEFT_OUT)
@pytest.mark.parametrize("name", ["soft", "hard", "hard_backward"])
def test_an_argument_that_a_body_ignores_is_seen(name, left_out):
    def ignores(right, draw, *rest):
        return right(draw._replace(**{left_out: LEFT_OUT[left_out]}), *rest)

    said = check.disagreement(_broken(name, ignores), CPU, torch.float32)
    if (name, left_out) == ("hard", "tau"):  # moves no hard draw
        assert said is None
    else:
        assert said.startswith(f"{name} of 5x10")


def test_noise_where_none_is_wanted_is_seen():
    def noisy(right, draw):
        return right(draw._replace(seed=torch.tensor(0)) if draw.seed is None else draw)

    assert check.disagreement(_broken("soft", noisy), CPU, torch.float32).startswith("soft of 5x10")


def test_every_sample_of_an_index_is_asked():
    def one_stream(right, draw, samples):
        return right(draw, 1).expand(samples, -1)

    assert check.disagreement(_broken("index", one_stream), CPU, torch.float32).startswith("index of 5x10")


def _single(right, draw):
    return right(draw._replace(logits=draw.logits.float())).to(draw.logits.dtype)


def test_float64_that_is_computed_in_float32_is_seen():
    single = _broken("soft", _single)
    assert check.disagreement(single, CPU, torch.float64).startswith("soft of 5x10")


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
@pytest.mark.parametrize("dtype", list(cpu.DTYPES))
def test_no_right_body_could_be_refused_for_its_rounding(kind, dtype, monkeypatch):
    """The two highest scores of every row are 1e-3 apart, a thousand times the rounding of noise in float32."""
    monkeypatch.setitem(check._SHAPES, "cpu", check._SHAPES[kind])
    asked = []

    def index(draw, samples):
        for stream in range(samples):
            s = reference.scores(draw, torch.tensor(stream))
            first, second = s.topk(2).values.unbind(-1)
            asked.append(float((first - second).min()))
        return reference.index(draw, samples)

    body = _broken("index", lambda right, *arguments: index(*arguments))
    assert check.disagreement(body, CPU, dtype) is None
    assert len(asked) == 2 + sum(min(rows, 2) for rows, _ in check._SHAPES[kind])  # the first shape twice
    assert min(asked) > 1e-3


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_no_right_body_could_be_refused_for_two_categories_in_the_other_order(kind, monkeypatch):
    """The three highest scores at a temperature are 1e-4 apart, a hundred times the rounding of noise in float32."""
    monkeypatch.setitem(check._SHAPES, "cpu", check._SHAPES[kind])
    asked = []

    def topk(right, draw, samples, k):
        for stream in range(samples):
            s = reference.scores(draw, torch.tensor(stream), draw.tau).topk(k + 1).values
            asked.append(float((s[..., :-1] - s[..., 1:]).min()))
        return right(draw, samples, k)

    assert check.disagreement(_broken("topk", topk), CPU, torch.float32) is None
    assert min(asked) > 1e-4


# The rest of the process does not notice


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
    run(code)


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
