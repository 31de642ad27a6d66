"""A linear layer, a draw from its logits and the code that was drawn: the call of all three in one."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import NamedTuple

import torch
from torch import Tensor

from softdraw.arguments import (
    a_row,
    check_col_start,
    check_layer,
    layer_dtype,
    number_tau,
    prepare_mask,
    prepare_rows,
    row_ids,
    tau_tensor,
)
from softdraw.checks import check_floating
from softdraw.laws import OneHotCategorical
from softdraw.laws.law import checked_rule
from softdraw.linear.function import Call, drawn
from softdraw.operators.linear import in_batch
from softdraw.overrides import not_scripted
from softdraw.rules.pathwise import Pathwise
from softdraw.rules.zgr import ZGR
from softdraw.seeds import seed_for
from softdraw.tensors import check_first_column, is_dtensor


class LinearDraw(NamedTuple):
    """What :func:`linear_draw` returns."""

    value: Tensor | None  # (*batch, V); None without a codebook
    index: Tensor  # pyright: ignore[reportIncompatibleMethodOverride]  (tuple.index, which nobody calls here)
    log_prob: Tensor


@not_scripted
def linear_draw(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    codebook: Tensor | None = None,
    *,
    rule: Pathwise = ZGR(),  # noqa: B008 (frozen)
    tau: float | Tensor | None = None,
    mask: Tensor | None = None,
    seed: int | Tensor | None = None,
    generator: torch.Generator | None = None,
    rows: int | Tensor = 0,
    col_start: int = 0,
) -> LinearDraw:
    r"""Draw from the logits of a linear layer and look the code up, without ever holding all logits.

    .. math:: k \sim \mathrm{softmax}(\theta), \quad \theta = W x + b, \qquad v = C_k, \quad \ell = \log p_k

    It is ``draw(F.linear(x, weight, bias), rule) @ codebook``, made over blocks of categories: forward with the best
    score, its index and the logsumexp so far, backward once more. Kept for the backward pass are the inputs, and 16
    bytes a row. Beside inputs and gradients it takes some tiles, of a million logits at most, and a few tensors of the
    size of x.

    Args:
        x: ``(*batch, D)``, floating point.
        weight: W, ``(K, D)``, as ``torch.nn.Linear`` has it, K categories, in the dtype of x. It may be a DTensor
            placed ``Shard(0)``, with bias and codebook split alike; x is then the same plain tensor on every rank, or a
            DTensor, and so are the results (:func:`softdraw.distributed.linear_draw` says what is sent).
        bias: b, ``(K,)``.
        codebook: C, ``(K, V)``, in the dtype of x: a vector for each category. Without it nothing is looked up: the
            value is None, and the index and its log-probability are all that is made.
        rule: ``ZGR()``, ``StraightThrough(tau)`` or ``StraightThroughGumbel(tau)``, whose gradient the value passes
            back. ZGR is the quickest: it needs one pass over the logits where the others need two.
        tau: takes the place of the rule's, such as the tau of a schedule: > 0, a number or a tensor, one or one a row
            ``(*batch, 1)``. It changes the gradient alone.
        mask: bool, True = allowed, broadcasts to ``(*batch, K)``. A forbidden category is never drawn.
        seed, generator, rows, col_start: as for :func:`gumbel_softmax`, for the logits.

    Returns:
        ``LinearDraw(value, index, log_prob)``. value: ``(*batch, V)`` in the dtype of x, under autocast in its dtype.
        index: int64, ``batch``: that of :func:`gumbel_max` for the same logits, bit for bit. A product of a block may
        round a logit otherwise than a product of all, so that a score that all but equals the best may win.
        log_prob: ``batch``, float32 (float64 for float64). A row with NaN or +inf among its allowed logits is NaN and
        has index -1; a row with nothing allowed has value 0, index -1 and log-probability -inf.

    Gradient:
        Of the value that of the rule at ``one_hot @ codebook``, for x, weight and bias; for the codebook exact. Of the
        log-probability exact. A gradient that is differentiated again, torch.func and export make all logits.

    Raises:
        TypeError, ValueError: naming the argument, what it got and what is allowed.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> layer, codebook = torch.nn.Linear(4, 1000), torch.randn(1000, 3, requires_grad=True)
        >>> value, index, log_prob = softdraw.linear_draw(
        ...     torch.randn(2, 4), layer.weight, layer.bias, codebook, seed=0)
        >>> value.shape, index
        (torch.Size([2, 3]), tensor([441,  58]))
        >>> torch.equal(value, codebook[index])
        True
        >>> (value.square().sum() - log_prob.sum()).backward(); layer.weight.grad.shape
        torch.Size([1000, 4])

    Source:
        Wijmans et al. (2025), "Cut your losses in large-vocabulary language models", for blocks of logits and their
        logsumexp; each rule names its own.
    """
    checked = _checked(rule, tau)
    check_layer(x, weight, bias, codebook)
    batch, k = x.shape[:-1], weight.shape[0]
    logits = torch.empty((), dtype=x.dtype, device=x.device).expand(*batch, k)  # their shape, without their memory
    allowed = prepare_mask(mask, logits, logits.dim() - 1)
    col_start = check_col_start(col_start, k)
    ids = prepare_rows(rows, batch, x.device, seed)
    ids = row_ids(batch, x.device) if ids is None else ids
    key = seed_for(logits, seed, generator)
    if is_dtensor(weight):
        from softdraw.distributed import dtensor_linear

        check_first_column(col_start)
        name, tau = _formula(checked)
        tau = tau_tensor(tau, logits, logits.dim() - 1)
        given = dtensor_linear.Given(x, weight, bias, codebook, key, ids, allowed, tau, name, layer_dtype(x))
        return LinearDraw(*dtensor_linear.linear_draw(given, agree=seed is None))
    checked = _flat(checked, logits)
    kernel = checked.kernel()
    assert kernel is not None
    key = key.reshape(-1, 1) if key.dim() else key
    flat, ids = x.reshape(-1, x.shape[-1]), ids.reshape(-1, 1)
    call = Call(flat, weight, bias, codebook, key, ids, allowed, col_start, layer_dtype(x), checked, kernel)
    value, index, log_prob = drawn(call)
    value = None if value is None else in_batch(value, batch)
    return LinearDraw(value, in_batch(index, batch), in_batch(log_prob, batch))


def _checked(rule: object, tau: float | Tensor | None) -> Pathwise:
    """The rule, with ``tau`` in the place of its own."""
    found = checked_rule(rule, OneHotCategorical)
    kernel = found.kernel()
    if kernel is None or (kernel.name not in ("zgr", "straight_through") and (kernel.name, kernel.draws) != _NOISY):
        raise TypeError(
            "rule must be ZGR, StraightThrough or StraightThroughGumbel, whose gradients need no more than a pass over "
            f"blocks of logits, got {found}: for another, softdraw.draw(layer(x), rule) @ codebook"
        )
    if tau is None:
        return found
    names = [f.name for f in fields(found)]  # pyright: ignore[reportArgumentType] (a dataclass)
    if "tau" not in names:
        raise ValueError(f"tau={tau!r} is for a rule that has one, and {type(found).__name__} has none: leave it out")
    if getattr(found, "backward_tau", None) is not None:
        raise ValueError("tau has no effect beside a backward_tau of the rule: leave one of them out")
    number_tau("tau", tau) if not isinstance(tau, Tensor) else check_floating("tau", tau)
    return checked_rule(replace(found, tau=tau), OneHotCategorical)  # pyright: ignore[reportArgumentType]


def _formula(rule: Pathwise) -> tuple[str, float | Tensor]:
    """The name of the rule's formula and its tau."""
    kernel = rule.kernel()
    assert kernel is not None
    return kernel.name, kernel.tau


def _flat(rule: Pathwise, logits: Tensor) -> Pathwise:
    """The rule for rows in one dimension: with one tau, or one for each, ``(N, 1)``."""
    given = {name: getattr(rule, name, None) for name in ("tau", "backward_tau")}
    taus = {name: a_row(name, t, logits, logits.dim() - 1) for name, t in given.items() if isinstance(t, Tensor)}
    flat = {name: t.reshape(-1, 1) if t.dim() else t for name, t in taus.items()}
    return replace(rule, **flat) if flat else rule  # pyright: ignore[reportArgumentType] (a dataclass)


_NOISY = ("gumbel_rao", 1)  # the kernel of StraightThroughGumbel
