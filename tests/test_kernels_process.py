"""The compiled kernels in a process: memory, import time, and a machine without them."""

from __future__ import annotations

import sys

import pytest
import torch
from processes import run, run_forked

from softdraw import kernels
from softdraw.kernels import native

compiled = pytest.mark.skipif(native.library() is None, reason="the kernels are not compiled here")


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
    lines = run(MEMORY).splitlines()
    assert len(lines) == 5
    for rows, extra in (map(int, line.split()) for line in lines):
        assert extra <= 16 * rows + 2 * 2**20


def test_importing_softdraw_costs_little_more_than_torch():
    """All names: at most 100 ms of the processor over torch; the best of several, since a busy machine only adds.

    The first run writes the bytecode that the others read. torch's objects are frozen: a collection of garbage that
    falls into the import would walk over all of them.
    """
    code = """if True:
        import gc, time, torch
        gc.collect(), gc.freeze()
        start = time.process_time()
        import softdraw.public
        print(time.process_time() - start)"""
    assert min(float(run(code, PYTHONDONTWRITEBYTECODE="")) for _ in range(4)) < 0.1


def test_import_loads_nothing_heavy():
    loaded = run_forked("import softdraw.public, sys; print(*sys.modules)").split()
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
    lines = run_forked(code, SOFTDRAW_LIBRARY="").splitlines()
    assert lines[0] == "['RuntimeWarning']"
    assert lines[1].startswith("softdraw.kernels.reference")
    assert "C++17 compiler" in lines[1]


@compiled
def test_the_compiled_body_runs_here():
    assert kernels.body(torch.device("cpu")).__name__ == "softdraw.kernels.cpu"
    assert native.isa() in kernels.reason(torch.device("cpu"))
    with pytest.raises(ValueError, match="no kernels for 'x86-64-v9'"):
        native.use_isa("x86-64-v9")
