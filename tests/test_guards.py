"""What stands between a draw and compiled kernels that are stale, foreign or wrong: the ABI number, the comparison with
plain torch before first use, one warning, and the fallback."""

from __future__ import annotations

import contextlib
import hashlib
import re
import shutil
import subprocess
import sys
import threading
import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from processes import run
from torch.utils._python_dispatch import TorchDispatchMode

import softdraw
from softdraw import kernels
from softdraw.kernels import check, cpu, native, reference

SOURCE = Path(__file__).parent.parent / "csrc"
CPU = torch.device("cpu")
compiled = pytest.mark.skipif(native.library() is None, reason="the kernels are not compiled here")
compiler = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler is here")


# One layout on both sides


def test_the_abi_number_is_that_of_the_header():
    assert hashlib.sha256((SOURCE / "call.h").read_bytes()).hexdigest()[:8] == f"{native.ABI:08x}"


def test_a_call_is_packed_as_the_header_has_it():
    """Every field in order, 64 bits each, and the codes of the element types."""
    header = re.sub("//.*", "", (SOURCE / "call.h").read_text())
    (fields,) = re.findall(r"struct Call \{(.*?)\};", header, re.DOTALL)
    kinds = {"*": "Q", "double": "d", "int64_t": "q"}
    packed = ""
    for declaration in filter(None, (line.strip() for line in fields.split(";"))):
        kind = "*" if "*" in declaration else declaration.split()[0]
        packed += kinds[kind] * len(declaration.split(","))
    spelled = "".join(code * int(count or 1) for count, code in re.findall(r"(\d*)([Qdq])", native.CALL.format))
    assert packed == spelled
    (storage,) = re.findall(r"enum Storage : int64_t \{(.*?)\}", header)
    assert {name.lower(): int(code) for name, code in re.findall(r"k(\w+) = (\d)", storage)} == native.STORAGE
    (operations,) = re.findall(r"struct Operations \{\s*Operation (.*?);", header)
    assert tuple(operations.split(", ")) == native.OPERATIONS


@compiled
def test_the_library_that_is_here_has_this_number():
    assert native._load()[0].softdraw_abi() == native.ABI


def test_a_library_that_is_here_is_used():
    """The other tests of compiled kernels skip themselves where there are none; a stale one must not make them."""
    assert native._path() is None or kernels.body(CPU) is cpu, native.why_missing()


# Libraries that are not used


def _abi(number: int) -> str:
    return f"unsigned softdraw_abi(void) {{ return {number}u; }}\n"


def _functions(body: str, isa: str = '"shim"', without: str = "") -> str:
    """All that the library exports but the number, in C; ``body`` is that of every operation."""
    operations = "".join(
        f"void softdraw_{name}(const long long *call, const long long *layout) {{ {body} }}\n"
        for name in native.OPERATIONS
        if name != without
    )
    return operations + (
        f"const char *softdraw_isa(void) {{ return {isa}; }}\n"
        "const char *softdraw_use_isa(const char *name) { return 0; }\n"
        "void softdraw_use_openmp(void *team) {}\n"
    )


ZEROS = """
    long long width[] = {4, 8, 2, 2}, size = call[8] * call[9] * width[call[10]];
    for (long long i = 0; i < size; ++i) ((char *)call[0])[i] = 0;
"""
SHIMS = {
    "no functions": ("int nothing;", "has no ABI number (softdraw_abi)"),
    "empty functions, as before there was a number": (_functions(""), "has no ABI number (softdraw_abi)"),
    "another number": (_abi(0x12345678) + _functions(""), f"its ABI number is 0x12345678, expected {native.ABI:#010x}"),
    "a function is missing": (_abi(native.ABI) + _functions("", without="hard"), "lacks softdraw_hard"),
    "another processor": (
        _abi(native.ABI) + _functions("", isa="0"),
        "instruction sets that this processor does not have",
    ),
    "empty functions": (_abi(native.ABI) + _functions(""), "gumbel of 5x10 in torch.float32 differs from plain torch"),
    "zeros": (_abi(native.ABI) + _functions(ZEROS), "gumbel of 5x10 in torch.float32 differs from plain torch"),
}

# Two draws of two dtypes and a backward pass: all as plain torch has them, after one warning.
DRAWS = """
import sys, warnings, torch, softdraw
from softdraw import kernels
from softdraw.kernels import native, reference
if len(sys.argv) > 1:
    native._path = lambda: __import__("pathlib").Path(sys.argv[1])
x = torch.linspace(-1, 1, 12).view(3, 4).requires_grad_()
with warnings.catch_warnings(record=True) as seen:
    warnings.simplefilter("always")
    y = softdraw.gumbel_softmax(x, 0.5, seed=1)
    y[:, 0].sum().backward()
    half = softdraw.gumbel_softmax(x.detach().bfloat16(), seed=1)
    softdraw.gumbel_max(x, seed=1)
seed = torch.tensor(1)
assert torch.equal(y, reference.soft(x, 0.5, seed, None, None))
assert torch.equal(half, reference.soft(x.bfloat16(), 1.0, seed, None, None))
assert kernels.body(x.device) is reference
print(len(seen), *(w.category.__name__ for w in seen))
print(*(w.message for w in seen))
print(kernels.reason(x.device))
"""


def _refused(path: Path | str, *, by: str) -> str:
    """What a process says that finds this file, by the variable or where the package is installed."""
    if by == "variable":
        said = run(DRAWS, SOFTDRAW_LIBRARY=str(path)).splitlines()
    else:
        said = run(DRAWS.replace("len(sys.argv) > 1", "True").replace("sys.argv[1]", repr(str(path)))).splitlines()
    count, warning, reason = said
    assert count == "1 RuntimeWarning"
    assert warning.startswith("softdraw draws with plain torch on the CPU: ")
    assert reason == warning.replace("softdraw draws with plain torch on the CPU", "plain torch")
    advice = (
        "names from this version of softdraw, or unset SOFTDRAW_LIBRARY" if by == "variable" else "pip install -e ."
    )
    assert advice in warning
    return warning


@compiler
@pytest.mark.parametrize(("shim", "by"), [*((shim, "variable") for shim in SHIMS), ("another number", "place")])
def test_a_wrong_library_gives_one_warning_and_plain_torch(shim, by, tmp_path):
    code, why = SHIMS[shim]
    path = tmp_path / "libshim.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-x", "c", "-", "-o", path], input=code, text=True, check=True)
    assert why in _refused(path, by=by)


@pytest.mark.parametrize(
    ("content", "by"), [(b"", "variable"), (b"not a library", "variable"), (None, "variable"), (b"", "place")]
)
def test_a_file_that_does_not_load_gives_one_warning_and_plain_torch(content, by, tmp_path):
    path = tmp_path / "libshim.so"
    if content is not None:
        path.write_bytes(content)
    assert "its compiled kernels do not load" in _refused(path, by=by)


@compiled
@pytest.mark.skipif(sys.platform != "linux", reason="changes the header of an ELF file")
def test_a_library_for_another_processor_gives_one_warning_and_plain_torch(tmp_path):
    path, library = tmp_path / "libshim.so", bytearray(native._path().read_bytes())
    library[18:20] = (8).to_bytes(2, sys.byteorder)  # e_machine: MIPS
    path.write_bytes(library)
    assert "its compiled kernels do not load" in _refused(path, by="variable")


def test_info_says_why(tmp_path):
    (tmp_path / "empty.so").write_bytes(b"")
    code = "import warnings; warnings.simplefilter('ignore'); from softdraw.cli.info import info; info()"
    said = run(code, SOFTDRAW_LIBRARY=str(tmp_path / "empty.so"))
    assert "reference kernels (plain torch: its compiled kernels do not load" in said


# The comparison


def test_right_bodies_agree():
    for body in (reference, *([cpu] if native.library() else [])):
        for dtype in cpu.DTYPES:
            assert check.disagreement(body, CPU, dtype) is None


def _broken(name: str, change) -> SimpleNamespace:
    """The reference with one operation changed: ``change(right, *arguments)`` instead of ``right(*arguments)``."""
    body = SimpleNamespace(**{operation: getattr(reference, operation) for operation in native.OPERATIONS})
    setattr(body, name, lambda *arguments: change(getattr(reference, name), *arguments))
    return body


def _nudged(right, *arguments):
    """One element is another: the last one of the last row."""
    out = right(*arguments).clone()
    out.view(-1)[-1] += 1 if not out.is_floating_point() else 2**-5
    return out


@pytest.mark.parametrize("dtype", list(cpu.DTYPES))
@pytest.mark.parametrize("name", native.OPERATIONS)
def test_one_wrong_element_of_one_operation_is_seen(name, dtype):
    assert check.disagreement(_broken(name, _nudged), CPU, dtype).startswith(f"{name} of 5x10 in {dtype} differs")


@pytest.mark.parametrize("cols", [10, 100, 600, 1104])
def test_every_width_is_asked(cols):
    wrong = _broken(
        "hard", lambda right, x, *rest: _nudged(right, x, *rest) if x.shape[-1] == cols else right(x, *rest)
    )
    assert f"x{cols} in torch.float32" in check.disagreement(wrong, CPU, torch.float32)


# What a wrong body could leave out, by the place of an argument among (logits, tau, seed, rows, mask, col_start).
LEFT_OUT = {"tau": (1, 1.0), "rows": (3, None), "mask": (4, None), "col_start": (5, 0)}


@pytest.mark.parametrize("left_out", LEFT_OUT)
@pytest.mark.parametrize("name", ["soft", "hard", "hard_backward"])
def test_an_argument_that_a_body_ignores_is_seen(name, left_out):
    place, default = LEFT_OUT[left_out]
    place += name == "hard_backward"  # whose second argument is the gradient

    def ignores(right, *arguments):
        return right(*(default if i == place else argument for i, argument in enumerate(arguments)))

    said = check.disagreement(_broken(name, ignores), CPU, torch.float32)
    if (name, left_out) == ("hard", "tau"):  # moves no hard draw
        assert said is None
    else:
        assert said.startswith(f"{name} of 5x10")


def test_noise_where_none_is_wanted_is_seen():
    def noisy(right, x, tau, seed, *rest):
        return right(x, tau, torch.tensor(0) if seed is None else seed, *rest)

    assert check.disagreement(_broken("soft", noisy), CPU, torch.float32).startswith("soft of 5x10")


def test_every_sample_of_an_index_is_asked():
    def one_stream(right, x, seed, rows, mask, samples, col_start):
        return right(x, seed, rows, mask, 1, col_start).expand(samples, -1)

    assert check.disagreement(_broken("index", one_stream), CPU, torch.float32).startswith("index of 5x10")


def test_float64_that_is_computed_in_float32_is_seen():
    single = _broken("soft", lambda right, x, *rest: right(x.float(), *rest).to(x.dtype))
    assert check.disagreement(single, CPU, torch.float64).startswith("soft of 5x10")


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
@pytest.mark.parametrize("dtype", list(cpu.DTYPES))
def test_no_right_body_could_be_refused_for_its_rounding(kind, dtype, monkeypatch):
    """The two highest scores of every row are 1e-3 apart, a thousand times the rounding of noise in float32."""
    monkeypatch.setitem(check._SHAPES, "cpu", check._SHAPES[kind])
    asked = []

    def index(x, seed, rows, mask, samples, col_start):
        for stream in range(samples):
            ids = torch.arange(len(x)).unsqueeze(-1) if rows is None else rows
            s = reference._scores(x, seed, ids, mask, col_start, torch.tensor(stream))
            first, second = s.topk(2).values.unbind(-1)
            asked.append(float((first - second).min()))
        return reference.index(x, seed, rows, mask, samples, col_start)

    body = _broken("index", lambda right, *arguments: index(*arguments))
    assert check.disagreement(body, CPU, dtype) is None
    assert len(asked) == 2 + sum(min(rows, 2) for rows, _ in check._SHAPES[kind])  # the first shape twice
    assert min(asked) > 1e-3


# The rest of the process does not notice


@compiled
def test_the_check_takes_milliseconds_and_imports_nothing():
    """At most 50 ms of the processor's time, 5 to 10 on an idle machine; once a process and dtype."""
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


@pytest.fixture
def unasked(monkeypatch):
    """As in a new process: no body was picked yet."""
    for name, empty in (("_picked", {}), ("_on_cpu", {}), ("_agreed", set()), ("_refused", {})):
        monkeypatch.setattr(kernels, name, empty)


class Recording(TorchDispatchMode):
    """Notes every operation that it sees."""

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
    if (first, around) == ("with a gradient", "inference mode"):
        pytest.skip("torch has no gradient there")
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


@pytest.mark.usefixtures("unasked")
def test_of_many_threads_that_draw_first_one_warns(monkeypatch):
    here = threading.Barrier(6)

    def compiled_kernels():
        here.wait()  # all of them ask
        return None, "the test says so"

    monkeypatch.setattr(kernels, "_compiled", compiled_kernels)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        threads = [threading.Thread(target=softdraw.gumbel_max, args=(torch.zeros(3),)) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert [str(w.message) for w in seen] == ["softdraw draws with plain torch on the CPU: the test says so"]


@compiled
@pytest.mark.usefixtures("unasked")
def test_a_body_that_is_wrong_in_one_dtype_keeps_the_others_that_agreed(monkeypatch):
    wrong = {torch.bfloat16: "soft differs"}
    monkeypatch.setattr(kernels, "disagreement", lambda body, device, dtype: wrong.get(dtype))
    assert kernels.body(CPU) is cpu
    with pytest.warns(RuntimeWarning, match="the compiled kernels are not used: soft differs"):
        assert kernels.body(CPU, torch.bfloat16) is reference
    assert kernels.body(CPU) is cpu
    assert kernels.body(CPU, torch.float64) is reference  # not asked any more, and no second warning
    assert "not with every dtype: the compiled kernels are not used: soft differs" in kernels.reason(CPU)


@compiled
@pytest.mark.usefixtures("unasked")
def test_a_check_that_fails_itself_is_a_refusal(monkeypatch):
    def fails(*_):
        raise RuntimeError("out of\nmemory")

    monkeypatch.setattr(kernels, "disagreement", fails)
    with pytest.warns(RuntimeWarning, match="the compiled kernels do not run here: out of memory"):
        assert kernels.body(CPU) is reference
