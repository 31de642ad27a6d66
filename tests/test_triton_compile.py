"""Every Triton kernel compiles for sm_80 and sm_90, without a GPU: launches are recorded and compiled ahead of time."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
import torch

triton = pytest.importorskip("triton", reason="the extra softdraw[triton] is not installed")
if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("the interpreter compiles nothing", allow_module_level=True)

from triton.backends.compiler import GPUTarget  # noqa: E402
from triton.compiler import ASTSource  # noqa: E402

from softdraw.kernels import triton as body  # noqa: E402

_KINDS = {bool: "u1", int: "i64", float: "fp32"}
_POINTERS = {
    torch.float32: "*fp32", torch.float64: "*fp64", torch.bfloat16: "*bf16", torch.float16: "*fp16",
    torch.int64: "*i64", torch.uint8: "*u8",
}  # fmt: skip
_ALIGNED = [["tt.divisibility", 16]]


def recorded(monkeypatch, call):
    """The launches that ``call`` makes: (kernel, warps, arguments by name, constants)."""
    launches = []

    def record(kernel, programs, warps, arguments, **constants):
        assert programs > 0
        launches.append((kernel, warps, dict(zip(kernel.arg_names, arguments, strict=False)), constants))

    with monkeypatch.context() as m:
        m.setattr(body, "_launch", record)
        call()
    return launches


def built(launch, capability):
    """The kernel compiled for a GPU, as Triton would at that launch."""
    kernel, warps, arguments, constants = launch
    none = {name: None for name, value in arguments.items() if value is None}
    signature, hints = {}, {}
    for i, name in enumerate(kernel.arg_names):
        value = arguments.get(name)
        if isinstance(value, torch.Tensor):
            signature[name], hints[(i,)] = _POINTERS[value.dtype], _ALIGNED
        else:
            signature[name] = "constexpr" if value is None else "i32" if type(value) is int else _KINDS[type(value)]
    source = ASTSource(kernel, signature, constexprs={**none, **constants}, attrs=hints)
    return triton.compile(source, target=GPUTarget("cuda", capability, 32), options={"num_warps": warps})


def local_memory(compiled, capability, tmp_path):
    """Bytes of registers that ptxas spills, as it says."""
    source = tmp_path / "kernel.ptx"
    source.write_text(compiled.asm["ptx"])
    ptxas = Path(triton.__file__).parent / "backends/nvidia/bin/ptxas"
    name = f"--gpu-name=sm_{capability}" + "a" * (capability >= 90)
    done = subprocess.run([ptxas, "-v", name, source, "-o", os.devnull], capture_output=True, text=True, check=True)
    return int(re.findall(r"(\d+) bytes spill stores", done.stderr)[0])


def operations(dtype, cols):
    x, seed = torch.empty(64, cols, dtype=dtype), torch.tensor(5)
    mask = torch.ones(64, cols, dtype=torch.bool)
    taus, ids = torch.ones(64, 1), torch.arange(64).view(64, 1)
    return {
        "soft": lambda: body.soft(x, 0.7, seed, None, None),
        "masked": lambda: body.soft(x, taus, seed.expand(64, 1), ids, mask),
        "hard": lambda: body.hard(x, 0.7, seed, None, None),
        "index": lambda: body.index(x, seed, None, None, 2),
        "hard_backward": lambda: body.hard_backward(x, x, 0.7, seed, None, None),
        "soft_backward": lambda: body.soft_backward(x, x, 0.7),
    }


@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize(("dtype", "cols"), [(torch.float32, 2**14), (torch.bfloat16, 20000), (torch.float64, 12)])
def test_kernels_compile_and_spill_nothing(dtype, cols, capability, monkeypatch, tmp_path):
    for name in ("soft", "index", "soft_backward", "masked") if cols == 12 else ("soft", "soft_backward"):
        for launch in recorded(monkeypatch, operations(dtype, cols)[name]):
            compiled = built(launch, capability)
            rare = 8 if capability == 80 else 0  # two registers, in the widest rows
            assert local_memory(compiled, capability, tmp_path) <= rare, (name, launch[0].__name__, launch[3])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_only_reductions_go_through_shared_memory(dtype, monkeypatch):
    """Logits and noise meet in the registers they were made in, four columns a thread, loaded at once."""
    (launch,) = recorded(monkeypatch, operations(dtype, 1024)["soft"])
    compiled = built(launch, 90)
    assert compiled.metadata.shared <= 16 * 4 * 4  # a value a warp
    assert f"ld.global.v{4 if dtype == torch.float32 else 2}.b32" in compiled.asm["ptx"]


def test_tau_and_width_specialise_nothing(monkeypatch):
    """Annealing and ragged widths of one tile come to the same kernel: the same types, hints and constants."""

    def key(launch):
        kernel, warps, arguments, constants = launch
        kinds = [_POINTERS[x.dtype] if isinstance(x, torch.Tensor) else type(x) for x in arguments.values()]
        return kernel.fn.__name__, warps, kinds, constants

    def keys(cols, tau):
        x = torch.empty(64, cols)
        calls = (lambda: body.soft(x, tau, torch.tensor(1), None, None), lambda: body.soft_backward(x, x, tau))
        return [key(launch) for call in calls for launch in recorded(monkeypatch, call)]

    for widths in ((513, 1001, 1023), (516, 1020, 1024)):
        assert all(keys(n, tau) == keys(widths[0], 1.0) for n in widths for tau in (0.1, 2.0))
    for kernel in (body.device.draw, body.device.jacobian):
        numbers = [
            p for p in kernel.params if not p.is_constexpr and p.name in {"tau", "rows", "cols", "inner", "splits"}
        ]
        assert all(p.do_not_specialize for p in numbers)
        assert len(numbers) == 5
