"""What the Triton kernels are compiled to, without a GPU: registers, memory, instructions, and how often."""

from __future__ import annotations

import os
import re

import pytest
import torch

triton = pytest.importorskip("triton", reason="the extra softdraw[triton] is not installed")
if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("the interpreter compiles nothing", allow_module_level=True)

from triton_aot import built, kinds, operations, recorded, resources  # noqa: E402

from softdraw.arguments import Draw  # noqa: E402
from softdraw.kernels import triton as body  # noqa: E402

_VERSION = tuple(map(int, triton.__version__.split(".")[:2]))
_WIDEST = {torch.float32: 2**14, torch.bfloat16: 2**14, torch.float64: 2**12}
_SPLIT = 20000
_NUMBERS = {"draws", "rows", "cols", "col_start", "quad", "inner", "splits", "tau", "gap", "blocks", "bits", "start"}
_NUMBERS |= {"scale", "shift", "in_rows", "other_rows", "grad_rows", "number", "group_rows", "chunks", "pieces"}
_NUMBERS |= {"samples"}
_NEW = ("rule", "bits", "pass")  # gradients of rules, bits, and passes of laws and losses
_HEAVIEST = ("hard_backward, masked", "drawn, masked")  # a soft draw is a part of the one, an index of the other


@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize("dtype", list(_WIDEST))
@pytest.mark.parametrize("wide", [False, True])
def test_nothing_spills(dtype, wide, capability, monkeypatch, tmp_path):
    """The widest rows that one program holds, with a mask and every operand by row, and the splits of wider ones."""
    if _VERSION == (3, 5):
        pytest.skip("the ptxas that Triton 3.5 brings spills some registers")
    calls = operations(dtype, _SPLIT if wide else _WIDEST[dtype])
    for name in _HEAVIEST:
        for launch in recorded(monkeypatch, calls[name]):
            registers, spilled = resources(built(launch, capability), capability, tmp_path)
            assert spilled == 0, (name, launch[0].__name__)
            assert 32 * launch[1] * registers <= 2**16  # a multiprocessor's registers


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("name", [name for name in operations(torch.float32, 4) if name.startswith(_NEW)])
def test_rules_bits_and_passes_spill_nothing(name, wide, monkeypatch, tmp_path):
    if _VERSION == (3, 5):
        pytest.skip("the ptxas that Triton 3.5 brings spills some registers")
    for launch in recorded(monkeypatch, operations(torch.float32, _SPLIT if wide else 4096)[name]):
        registers, spilled = resources(built(launch, 90), 90, tmp_path)
        assert spilled == 0, launch[0].__name__
        assert 32 * launch[1] * registers <= 2**16


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
@pytest.mark.parametrize("name", operations(torch.float32, 4))
def test_every_operation_compiles_for_ragged_rows(dtype, name, monkeypatch):
    for launch in recorded(monkeypatch, operations(dtype, 13)[name]):
        assert built(launch, 80).asm["cubin"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("cols", [64, 1024, _SPLIT])
def test_only_reductions_go_through_shared_memory(dtype, cols, monkeypatch):
    """Logits and noise meet in the registers they were made in: four columns a thread, loaded and stored at once."""
    if cols == 64 and _VERSION < (3, 7):
        pytest.skip("Triton before 3.7 exchanges the scores of narrow rows through shared memory")
    calls = operations(dtype, cols)
    for name in ("soft, masked", "hard", "index", "hard_backward"):
        for launch in recorded(monkeypatch, calls[name]):
            kernel, warps, arguments = launch
            compiled = built(launch, 90)
            # Sums, maxima, places: up to 8 bytes a warp, or a row where a program has several.
            assert compiled.metadata.shared <= 8 * max(warps, arguments.get("R", 1))
            if kernel.fn.__name__ in ("whole", "write", "part"):
                assert f"ld.global.v{4 if dtype == torch.float32 else 2}.b32" in compiled.asm["ptx"]


def test_noise_takes_a_product_a_half_round_and_two_logarithms(monkeypatch):
    """What the budget in benchmarks/README.md counts on: 64-bit products, and the special-function unit's log2."""
    (launch,) = recorded(monkeypatch, operations(torch.bfloat16, 1024)["soft"])
    ptx, elements = built(launch, 90).asm["ptx"], 1024 // (32 * launch[1])
    calls = elements // 4 + elements  # of Philox: one for four columns, and in the rare branch one for each
    assert len(re.findall(r"mul\.(?:wide|hi)\.u32", ptx)) <= 20 * calls
    assert len(re.findall(r"mul\.lo\.s32", ptx)) < 2 * calls
    assert len(re.findall(r"lg2\.approx\.ftz\.f32", ptx)) == 2 * elements
    assert len(re.findall(r"ex2\.approx\.ftz\.f32", ptx)) == elements


def test_tau_width_and_rows_specialise_nothing(monkeypatch):
    """Annealing and ragged widths of one tile come to the same kernel: the same types, hints and constants."""

    def keys(rows, cols, tau):
        x, seed = torch.empty(rows, cols), torch.tensor(1)
        calls = (
            lambda: body.soft(Draw(x, tau, seed)),
            lambda: body.index(Draw(x, 1.0, seed), 1),
            lambda: body.drawn(Draw(x, tau, seed), 1),
            lambda: body.topk(Draw(x, tau, seed), 1, 3),
            lambda: body.soft_backward(x, x, tau),
            lambda: body.hard_backward(Draw(x, tau, seed), x),
        )
        return [kinds(launch) for call in calls for launch in recorded(monkeypatch, call)]

    for widths in ((513, 1001, 1023), (516, 1020, 1024), (20001, 30003), (20000, 131072)):
        assert all(keys(7, n, tau) == keys(64, widths[0], 1.0) for n in widths for tau in (0.1, 2.0))
    families = (
        body.draws,
        body.indices.index_kernels,
        body.rules,
        body.rao,
        body.triton_bits,
        body.passes.pass_kernels,
        body.over_bits.bit_kernels,
    )
    kernels = [kernel for family in families for kernel in vars(family).values()]
    for kernel in (*kernels, body.gradients.jacobian, body.philox.noise):
        if getattr(kernel, "__module__", "").startswith("softdraw") and getattr(kernel, "do_not_specialize", None):
            numbers = [p for p in kernel.params if not p.is_constexpr and p.name in _NUMBERS]
            assert numbers
            assert all(p.do_not_specialize for p in numbers)
            steps = [p for p in kernel.params if p.name.endswith(("_outer", "_inner", "_col"))]
            assert all(p.do_not_specialize for p in steps)


def test_without_rows_nothing_is_launched(monkeypatch):
    for cols in (5, _SPLIT):
        for name, call in operations(torch.float32, cols, rows=0).items():
            assert recorded(monkeypatch, call) == [], name
