"""The mathematics that laws, rules, losses and kernels share, one function each, in plain torch.

Categories are in the last dimension, -inf forbids one, and every function is differentiable as often as wanted. At
infinite logits ``log_probs`` and ``times`` give the limit, in laws and losses alike: a row whose largest logit is +inf
tends to the uniform law over its +inf logits, and a row of -inf alone allows nothing. ``softmax`` is that of draws:
there a row with +inf is NaN.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from softdraw.private_torch import forward_mode
from softdraw.tensors import is_plain, matched


def masked(logits: Tensor, mask: Tensor | None) -> Tensor:
    """The logits with forbidden categories at -inf."""
    return logits if mask is None else logits.masked_fill(~mask, -math.inf)


def broken(x: Tensor) -> Tensor:
    """Which rows have NaN or +inf, so that they have no draw, ``(..., 1)``."""
    top = x.detach().amax(-1, keepdim=True)
    return top.isnan() | (top == math.inf)


def masked_for_draw(logits: Tensor, mask: Tensor | None) -> Tensor:
    """``masked``, but for rows without a draw, whose gradient is NaN in every category, forbidden ones included."""
    return logits if mask is None else masked(logits, mask | broken(masked(logits, mask)))


def two_categories(theta: Tensor, mask: Tensor | None) -> Tensor:
    """The logits of bits as those of two categories, (0, theta), or (-inf, 0) for theta = inf."""
    x = masked(theta, mask)
    always = x == math.inf  # after the mask: a bit that is forbidden is 0 whatever its theta
    return torch.stack((torch.zeros_like(x).masked_fill(always, -math.inf), x.masked_fill(always, 0)), -1)


def one_hot(index: Tensor, categories: int, dtype: torch.dtype) -> Tensor:
    """One-hots of indices; an index of -1 gives a row of zeros."""
    each = matched("", torch.arange(categories, device=index.device), index)
    return (each == index.unsqueeze(-1)).to(dtype)


def k_hot(scores: Tensor, k: int | Tensor) -> Tensor:
    """Ones at the k largest of each row (k: an int, or one for each), the smallest indices in a tie. A row with fewer
    than k above -inf is zero, one with NaN or +inf is NaN."""
    k = k if isinstance(k, int) else k.unsqueeze(-1)
    order = scores.sort(dim=-1, descending=True, stable=True).indices
    first = (matched("", torch.arange(scores.shape[-1], device=scores.device), scores) < k).to(scores.dtype)
    z = torch.zeros_like(scores).scatter(-1, order, first.expand(scores.shape))
    z = torch.where((scores != -math.inf).sum(-1, keepdim=True) < k, 0, z)
    return z.masked_fill((scores.isnan() | (scores == math.inf)).any(-1, keepdim=True), math.nan)


def softmax(scores: Tensor, tau: float | Tensor = 1.0) -> Tensor:
    """softmax(scores / tau) for any tau > 0; a row with nothing allowed is all zero, one with NaN or +inf is NaN.

    Dividing differences by tau, not scores, is what makes any tau safe: the exponent is never above 0.
    """
    top = scores.detach().amax(-1, keepdim=True)
    e = torch.exp((scores - torch.where(top == -math.inf, 0, top)) / tau)
    total = e.sum(-1, keepdim=True)
    return e / torch.where(total == 0, 1, total)


def softmax_vjp(p: Tensor, grad: Tensor) -> Tensor:
    """J(p) g = p (g - <p, g>), the softmax's Jacobian times a vector in O(K); symmetric, so its own transpose."""
    return p * (grad - (p * grad).sum(-1, keepdim=True))


def log_probs(x: Tensor) -> Tensor:
    """log softmax; its value and its gradient are the limits where logits are infinite.

    The row of 0 at its +inf logits and -inf elsewhere has the same limit as a row whose top is +inf. A row with nothing
    allowed stays at -inf, without a gradient.
    """
    if readable(x):
        y = x.log_softmax(-1)
        if not math.isnan(y.detach().sum().item()):  # no row without a finite largest logit: there torch gives NaN
            return y
    top = x.detach().amax(-1, keepdim=True)
    limit = torch.where(x.detach() == top, 0.0, -math.inf).to(x.dtype)
    nothing = top == -math.inf
    x = torch.where(top == math.inf, value_of(limit, x), x)
    return x.masked_fill(nothing, 0).log_softmax(-1).masked_fill(nothing, -math.inf)


def mixed(x: Tensor, share: float) -> Tensor:
    """log of the mixture of softmax with ``share`` of the uniform law over the allowed categories.

    No probability is formed, so the gradient, at most that of log_probs, is finite where a probability underflows.
    """
    forbidden = x.detach() == -math.inf
    allowed = (~forbidden).sum(-1, keepdim=True).clamp_min(1).to(x.dtype)
    own = log_probs(x).masked_fill(forbidden, 0)  # beside -inf the second derivative of logaddexp is NaN
    log_p = torch.logaddexp(own + math.log1p(-share), math.log(share) - allowed.log())
    return log_p.masked_fill(forbidden, -math.inf)


def probs(x: Tensor) -> Tensor:
    """exp(log_probs(x)), by torch's own softmax where every row is finite."""
    if readable(x):
        y = x.softmax(-1)
        if not math.isnan(y.detach().sum().item()):
            return y
    return log_probs(x).exp()


def readable(x: Tensor) -> bool:
    """Whether values can be looked at: on the CPU, outside graphs."""
    return is_plain(x) and x.is_cpu


def logsumexp(logits: Tensor) -> Tensor:
    """log sum exp over the categories, kept as a dimension; 0, with gradient 0, for a row with nothing allowed."""
    empty = (logits == -math.inf).all(-1, keepdim=True)
    return torch.where(empty, 0, logits).logsumexp(-1, keepdim=True).masked_fill(empty, 0)


def condition(logits: Tensor, sample: Tensor, g: Tensor) -> Tensor:
    """Gumbel scores of ``logits`` given that ``sample`` is their argmax, from independent noise ``g``."""
    chosen = sample > 0
    top = torch.where(chosen, g, 0).sum(-1, keepdim=True) + logsumexp(logits)
    return torch.where(chosen, top, -torch.logaddexp(-(g + logits), -top))


def times(coefficient: Tensor, x: Tensor) -> Tensor:
    """coefficient * x where 0 * inf is 0, forward and backward: what has no weight is not there."""
    return coefficient * x.masked_fill((coefficient == 0) & x.isinf(), 0)


def value_of(value: Tensor, gradient: Tensor) -> Tensor:
    """The value of the first with the gradient of the second, bit for bit: ``straight_through`` without its checks."""
    if torch.compiler.is_compiling():
        return _Compiled.apply(value, gradient)
    y = _StraightThrough.apply(value, gradient)
    if not forward_mode():
        return y
    # A jvp is not differentiated again. The sum, whose bracket is 0, has every derivative where it is finite.
    return torch.where(gradient.isfinite(), value.detach() + (gradient - gradient.detach()), y)


class _Compiled(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(value: Tensor, gradient: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[None, Tensor]:
        return None, grad_outputs[0]


class _StraightThrough(_Compiled):
    """Adds forward mode, which torch.compile does not trace in a Function."""

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor) -> Tensor:
        return tangents[1].clone()
