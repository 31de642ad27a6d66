"""Every Triton kernel compiles for sm_80 and sm_90, without a GPU: launches are recorded and compiled ahead of time."""

from __future__ import annotations

import os
import re

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


def spills(compiled):
    """Bytes of local memory that ptxas needs: a stack frame is where spilled registers go."""
    return compiled.asm["sass"].count("STL") + compiled.asm["sass"].count("LDL")
