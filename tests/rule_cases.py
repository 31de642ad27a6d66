"""What the kernels of the rules are compared on, and how far they may be from their reference.

How the distance is measured. A gradient is a difference of terms as large as g / tau, so the unit is that of float32 at
the largest |g| / tau of the row, and what counts is the distance from the reference in float64 on the same float32
inputs. A closed form is within 4 such units. A rule with noise also has the rounding of its noise, divided by tau: its
distance is within 4 times that of the reference in float32, or 4 units.
"""

from __future__ import annotations

import kernel_cases
import torch
from torch import Tensor

from softdraw.arguments import KernelRule, compute_dtype
from softdraw.kernels import reference

UNITS = 4
RULES = [
    KernelRule("straight_through"),
    KernelRule("zgr"),
    KernelRule("reinmax"),
    KernelRule("gapped", gap=0.8),
    KernelRule("gumbel_rao", draws=1),
    KernelRule("gumbel_rao", draws=4),
    KernelRule("reinmax_rao", draws=3),
]


def wide(x):
    return x.double() if isinstance(x, Tensor) and x.is_floating_point() else x


def units(ours: Tensor, exact: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    """The largest distance in every row, in units of the dtype at ``scale``."""
    assert torch.equal(ours.isnan(), exact.isnan())
    eps = torch.finfo(dtype).eps
    distance = (ours.double() - exact).abs().nan_to_num(0).amax(-1)
    return distance / (eps * scale.clamp_min(1e-30))


def check(run, call, draw, grad, drawn, rule, is_given, most=UNITS):
    """``run`` calls the operation that ``call`` names; it is compared in the compute dtype, at most ``most`` units."""
    dtype = compute_dtype(draw.logits.dtype)
    draw, grad = draw._replace(logits=draw.logits.to(dtype)), grad.to(dtype)
    if not draw.logits.numel():
        return
    ours = run(call, draw, grad, drawn, rule, is_given)
    double = draw._replace(logits=draw.logits.double(), tau=wide(draw.tau))
    exact = getattr(reference, call)(double, grad.double(), drawn, rule, is_given)
    single = getattr(reference, call)(draw, grad, drawn, rule, is_given)
    tau = draw.tau if isinstance(draw.tau, Tensor) else torch.tensor(draw.tau)
    over = 1 / tau.double().clamp_max(1)
    row = grad.double().abs().amax(-1, keepdim=True) * (over if tau.dim() == grad.dim() else over.amax())
    scale = row.expand(*grad.shape[:-1], 1).squeeze(-1)
    got, theirs = units(ours, exact, scale, dtype), units(single, exact, scale, dtype)
    allowed = (4 * theirs).clamp_min(most) if rule.noisy else torch.full_like(got, most)
    assert bool((got <= allowed).all()), (got.max(), theirs.max())


def bit_case(special: bool, dtype: torch.dtype, key: int = 0):
    case = kernel_cases.make((3, 300), dtype, "plain", "full", special, "number", "counted", 0, key)
    ids = torch.randint(2**62, (3, 300), generator=torch.Generator().manual_seed(key))
    tau = torch.rand(3, 300, generator=torch.Generator().manual_seed(key + 1)).to(compute_dtype(dtype)) + 0.2
    return case.draw._replace(rows=ids, tau=tau), case.grad


def check_bits(run, draw, grad, rule, is_given, most=UNITS):
    """The same for the gradient of bits."""
    dtype = compute_dtype(draw.logits.dtype)
    b = reference.bits(draw, None)
    ours = run("bits_backward", draw, grad, b, rule, is_given)
    double = draw._replace(logits=draw.logits.double(), tau=draw.tau.double())
    exact = reference.bits_backward(double, grad.double(), b, rule, is_given)
    single = reference.bits_backward(draw, grad, b, rule, is_given)
    scale = (grad.double().abs() / draw.tau.double().clamp_max(1)).unsqueeze(-1).amax(-1)
    got, theirs = (units(x.unsqueeze(-1), exact.unsqueeze(-1), scale, dtype) for x in (ours, single))
    allowed = (4 * theirs).clamp_min(most) if rule.noisy else torch.full_like(got, most)
    assert bool((got <= allowed).all()), got.max()
