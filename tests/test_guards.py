"""Compiled kernels that are stale, foreign or wrong are not used: the ABI number, one warning, plain torch instead."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import pytest
import torch
from processes import run, run_forked
from unasked import unasked  # noqa: F401

import softdraw
from softdraw import kernels
from softdraw.kernels import cpu, elf, native, reference

SOURCE = Path(__file__).parent.parent / "csrc"
CPU = torch.device("cpu")
compiled = pytest.mark.skipif(native.library() is None, reason="the kernels are not compiled here")
compiler = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler is here")


# One layout on both sides


def test_the_abi_number_is_that_of_the_headers():
    every = b"".join((SOURCE / name).read_bytes() for name in ("call.h", "pass.h", "bits.h", "subset.h"))
    assert hashlib.sha256(every).hexdigest()[:8] == f"{native.ABI:08x}"


@pytest.mark.parametrize(
    ("name", "packer", "listed", "typed", "operations"),
    [
        ("Call", native.CALL, "Operations", "Operation", native.OPERATIONS),
        ("Pass", native.PASS, "Passes", "PassOperation|UsageOperation", native.PASSES),
        (
            "Bits",
            native.BITS,
            "BitsOperations",
            "BitsOperation",
            tuple(n.removeprefix("bits_") for n in native.OVER_BITS),
        ),
        (
            "Subset",
            native.SUBSET,
            "SubsetOperations",
            "SubsetOperation",
            tuple(n.removeprefix("subset_") for n in native.OF_SUBSETS),
        ),
        (
            "TileCall",
            native.TILE,
            "TileOperations",
            "TileOperation",
            tuple(n.removeprefix("tile_") for n in native.OF_TILES),
        ),
    ],
)
def test_a_call_is_packed_as_its_header_has_it(name, packer, listed, typed, operations):
    """Every field in order, 64 bits each, and the names of the operations."""
    header = re.sub("//.*", "", (SOURCE / f"{name.removeprefix('Tile').lower()}.h").read_text())
    (fields,) = re.findall(rf"struct {name} \{{(.*?)\}};", header, re.DOTALL)
    kinds = {"*": "Q", "double": "d", "int64_t": "q"}
    packed = ""
    for declaration in filter(None, (line.strip() for line in fields.split(";"))):
        kind = "*" if "*" in declaration else declaration.split()[0]
        packed += kinds[kind] * len(declaration.split(","))
    spelled = "".join(code * int(count or 1) for count, code in re.findall(r"(\d*)([Qdq])", packer.format))
    assert packed == spelled
    (lists,) = re.findall(rf"struct {listed} \{{(.*?)\}};", header, re.DOTALL)
    names = re.findall(r"\b(?:" + typed + r") (.*?);", lists, re.DOTALL)
    assert tuple(name for one in names for name in re.split(r",\s*", one)) == operations


def test_codes_are_those_of_the_headers():
    """Of the element types, reductions and losses of usage, and of what the second operand of a pass must be."""
    header = (SOURCE / "call.h").read_text()
    (storage,) = re.findall(r"enum Storage : int64_t \{(.*?)\}", header)
    assert {name.lower(): int(code) for name, code in re.findall(r"k(\w+) = (\d)", storage)} == native.STORAGE
    (reductions,) = re.findall(r"enum Reduction : int64_t \{(.*?)\}", header)
    assert {name.lower(): int(code) for name, code in re.findall(r"k(\w+) = (\d)", reductions)} == native.REDUCTIONS
    (usage,) = re.findall(r"enum UsageLoss : int64_t \{(.*?)\}", (SOURCE / "pass.h").read_text())
    assert {name: int(code) for name, code in re.findall(r"k(\w+) = (\d)", usage)} == native.USAGE
    (checks,) = re.findall(r"enum Check : int64_t \{(.*?)\}", (SOURCE / "pass.h").read_text())
    assert {name: int(code) for name, code in re.findall(r"k(\w+) = (\d)", checks)} == native.CHECKS


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
        for name in (*native.OPERATIONS, *native.OF_SUBSETS, *native.OF_TILES)
        if name != without
    )
    operations += "".join(
        f"long long softdraw_{name}(const long long *pass) {{ return 0; }}\n"
        for name in (*native.PASSES, *native.OVER_BITS)
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
from softdraw.arguments import Draw
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
assert torch.equal(y, reference.soft(Draw(x, 0.5, seed)))
assert torch.equal(half, reference.soft(Draw(x.bfloat16(), 1.0, seed)))
assert kernels.body(x.device) is reference
print(len(seen), *(w.category.__name__ for w in seen))
print(*(w.message for w in seen))
print(kernels.reason(x.device))
"""


def _refused(path: Path | str, *, by: str) -> str:
    """What a process says that finds this file, by the variable or where the package is installed."""
    if by == "variable":
        said = run_forked(DRAWS, SOFTDRAW_LIBRARY=str(path)).splitlines()
    else:
        said = run_forked(
            DRAWS.replace("len(sys.argv) > 1", "True").replace("sys.argv[1]", repr(str(path)))
        ).splitlines()
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


@compiled
@pytest.mark.skipif(sys.platform != "linux", reason="cuts an ELF file off")
def test_a_library_that_was_cut_off_gives_one_warning_and_plain_torch(tmp_path):
    """Without a bus error: Linux maps such a file without an error."""
    path, library = tmp_path / "libshim.so", native._path().read_bytes()
    assert elf.missing_bytes(native._path()) == 0
    for part in (0.9, 0.02):
        path.write_bytes(library[: int(part * len(library))])
        assert elf.missing_bytes(path) > 0
    path.write_bytes(library[: len(library) // 2])
    assert "was cut off: it lacks" in _refused(path, by="variable")


def test_info_says_why(tmp_path):
    (tmp_path / "empty.so").write_bytes(b"")
    code = "import warnings; warnings.simplefilter('error'); from softdraw.cli.info import info; info()"
    said = run(code, SOFTDRAW_LIBRARY=str(tmp_path / "empty.so"))
    assert "reference kernels (plain torch: its compiled kernels do not load" in said
    ratio = re.search(r"takes (\S+) times as long as torch.nn.functional.gumbel_softmax, measured just now", said)
    assert ratio
    assert 0.1 < float(ratio[1]) < 1000  # 1.5 on a quiet machine, 12 was seen on a busy one


@compiled
def test_info_says_nothing_of_a_fallback_where_there_is_none():
    assert "times as long" not in run("from softdraw.cli.info import info; info()")


# One warning for all threads and dtypes


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
