"""Compilation ahead of time: launches are recorded where no GPU is, and their kernels compiled for one."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from softdraw.arguments import Draw, KernelRule, compute_dtype
from softdraw.kernels import triton as body
from softdraw.kernels.bits_cpu import Bits
from softdraw.kernels.native import RULES, USAGE
from softdraw.kernels.pass_reference import Rows

TOOLS = Path(triton.__file__).parent / "backends/nvidia/bin"
_KINDS = {bool: "u1", int: "i64", float: "fp32"}
_POINTERS = {
    torch.float32: "*fp32", torch.float64: "*fp64", torch.bfloat16: "*bf16", torch.float16: "*fp16",
    torch.int64: "*i64", torch.int32: "*i32", torch.uint8: "*u8",
}  # fmt: skip
_ALIGNED = [["tt.divisibility", 16]]


def recorded(monkeypatch, call):
    """The launches that ``call`` makes: (kernel, warps, arguments by name)."""
    launches = []

    def record(kernel, cut, named):
        assert cut.programs > 0
        named = named | cut.named
        launches.append((kernel, cut.warps, {x: named[x] for x in body.launching.parameters(kernel)}))

    with monkeypatch.context() as m:
        m.setattr(body.launching, "launch", record)
        call()
    return launches


def built(launch, capability):
    """The kernel compiled for a GPU, as Triton would at that launch."""
    kernel, warps, arguments = launch
    signature, hints, constants = {}, {}, {}
    for i, (parameter, value) in enumerate(zip(kernel.params, arguments.values(), strict=True)):
        if parameter.is_constexpr or value is None:
            signature[parameter.name], constants[parameter.name] = "constexpr", value
        elif isinstance(value, torch.Tensor):
            signature[parameter.name], hints[(i,)] = _POINTERS[value.dtype], _ALIGNED
        else:
            signature[parameter.name] = "i32" if type(value) is int else _KINDS[type(value)]
    source = ASTSource(kernel, signature, constexprs=constants, attrs=hints)
    return triton.compile(source, target=GPUTarget("cuda", capability, 32), options={"num_warps": warps})


def kinds(launch):
    """What Triton compiles anew for: types, constants and warps, but no values."""
    kernel, warps, arguments = launch
    named = [
        (p.name, x if p.is_constexpr or x is None else _POINTERS[x.dtype] if isinstance(x, torch.Tensor) else type(x))
        for p, x in zip(kernel.params, arguments.values(), strict=True)
    ]
    return kernel.fn.__name__, warps, named


def resources(compiled, capability, folder):
    """Registers a thread and bytes of them that are spilled, as ptxas says."""
    source = folder / "kernel.ptx"
    source.write_text(compiled.asm["ptx"])
    name = f"--gpu-name=sm_{capability}" + "a" * (capability >= 90)
    command = [TOOLS / "ptxas", "-v", name, source, "-o", os.devnull]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    return int(re.findall(r"Used (\d+) registers", said)[0]), int(re.findall(r"(\d+) bytes spill stores", said)[0])


def operations(dtype, cols, rows=64):
    """Calls by name: plain, and "masked" ones whose every argument is a tensor of its own for each row."""
    x, seed = torch.empty(rows, cols, dtype=dtype), torch.tensor(5)
    mask = torch.ones(rows, cols, dtype=torch.bool)
    taus, ids = torch.ones(rows, 1), torch.arange(rows).view(rows, 1)
    draw, masked = Draw(x, 0.7, seed), Draw(x, taus, seed.expand(rows, 1), ids, mask)
    return {
        "soft": lambda: body.soft(draw),
        "soft, masked": lambda: body.soft(masked),
        "hard": lambda: body.hard(draw),
        "hard, masked": lambda: body.hard(masked),
        "index": lambda: body.index(Draw(x, 1.0, seed), 1),
        "index, samples": lambda: body.index(Draw(x, 1.0, seed), 2),
        "drawn, masked": lambda: body.drawn(masked, 2),
        "topk, masked": lambda: body.topk(masked, 2, 3),
        "pass drawn": _drawn_backward(x, mask),
        "hard_backward": lambda: body.hard_backward(draw, x),
        "hard_backward, masked": lambda: body.hard_backward(masked, x),
        "soft_backward": lambda: body.soft_backward(x, x, 0.7),
        **{f"rule {name}, masked": _rule(name, masked, x) for name in RULES},
        "bits": lambda: body.bits(Draw(x, 1.0, seed), 2),
        **{f"bits {name}": _bits(name, x, mask) for name in RULES},
        **{f"pass {name}": _pass(name, x, mask) for name in ("entropy", "index_nll", "nll", "kl", "kl_with_slope")},
        **{f"pass over bits, {name}": _over_bits(name, x) for name in ("nll", "entropy", "variance", "kl", "share")},
        **{f"pass usage, {name}": _usage(code, x, mask) for name, code in USAGE.items()},
    }


def _rule(name, draw, grad):
    """The gradient of a rule in two samples."""
    index = torch.zeros(2, len(grad), dtype=torch.int64)
    return lambda: body.rule_backward(draw, grad.expand(2, *grad.shape), index, KernelRule(name, draws=3), False)


def _bits(name, x, mask):
    draw = Draw(x, torch.ones(x.shape), torch.tensor(5), torch.zeros(x.shape, dtype=torch.int64), mask)
    return lambda: body.bits_backward(
        draw, x.expand(2, *x.shape), x.expand(2, *x.shape), KernelRule(name, draws=3), False
    )


def _pass(name, x, mask):
    """A pass and its gradients for both operands."""
    rows = Rows(x, None if name in ("entropy", "index_nll") else x, mask, None, torch.zeros(len(x), dtype=torch.int64))
    numbers = {"entropy": (1.0, 0.0), "nll": (1.0, 0, 0.0)}.get(name, ())

    def call():
        out, saved = getattr(body.passes, name)(rows, "none", *numbers)
        getattr(body.passes, f"{name}_backward")(rows, out, saved, "none", (True, True), *numbers)

    return call


def _drawn_backward(x, mask):
    """The gradient of what two samples say about their law."""
    rows = Rows(x, mask=mask, category=torch.zeros(2, len(x), dtype=torch.int64))
    grad = torch.empty(3, len(x), dtype=compute_dtype(x.dtype))
    numbers = torch.empty(len(x), 3, dtype=torch.float64)
    return lambda: body.passes.drawn_backward(rows, grad, numbers, "none", (True, False))


def _over_bits(name, x):
    """A pass over bits and its gradients, of single bits and reduced, with every operand."""
    wide = torch.empty(x.shape, dtype=compute_dtype(x.dtype))
    mask = torch.ones(x.shape, dtype=torch.bool)
    every = Bits(x, wide, wide, wide, mask, 0.5, rows=len(x))
    calls = {"nll": (Bits(x, wide, law=True), every._replace(reduction=2)), "share": (every,)}

    def call():
        for bits in calls.get(name, (Bits(x, wide),)):
            made = getattr(body.over_bits, name)(bits)
            out, *more = made[:2] if isinstance(made, tuple) else (made,)
            getattr(body.over_bits, f"{name}_backward")(bits, out, *([(True, True)] if name == "kl" else more))

    return call


def _usage(loss, x, mask):
    """A pass of usage of two groups and its gradient, with every operand."""
    groups = min(len(x), 2)
    x, mask = (t.view(groups, -1, t.shape[-1]) if groups else t.unsqueeze(0) for t in (x, mask))
    batch = x.shape[:-1]
    weight = torch.empty(batch, dtype=compute_dtype(x.dtype))
    rows = Rows(x, mask=mask, keep=torch.ones(batch, dtype=torch.bool), weight=weight)

    def call():
        out, saved = body.passes.usage(rows, "none", loss, True)
        body.passes.usage_backward(rows, out, saved, "none", (True, False), loss, True)

    return call
