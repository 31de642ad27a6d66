"""The public draws from the categorical law of logits, soft or hard."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NoReturn

import torch
from torch import Tensor
from torch.overrides import has_torch_function_variadic

from softdraw.arguments import (
    call_error,
    check_col_start,
    check_flags,
    prepare_logits,
    prepare_mask,
    prepare_shape,
    prepare_tau,
    rows_of,
)
from softdraw.checks import (
    check_device,
    check_floating,
    check_tensor,
    given,
)
from softdraw.noise import STREAMS
from softdraw.numerics import value_of
from softdraw.operators import draws
from softdraw.overrides import handed_over, not_scripted, overridable, stands_in
from softdraw.tensors import PLAIN, check_first_column, split_over_categories

__all__ = ["gumbel_max", "gumbel_softmax", "straight_through"]


@not_scripted
def gumbel_softmax(
    logits: Tensor,
    tau: float | Tensor = 1.0,
    hard: bool = False,
    *misplaced: NoReturn,
    dim: int = -1,
    mask: Tensor | None = None,
    noise: bool = True,
    seed: int | Tensor | None = None,
    generator: torch.Generator | None = None,
    rows: int | Tensor = 0,
    col_start: int = 0,
    **unknown: NoReturn,
) -> Tensor:
    r"""Draw from the categorical law of ``logits``, relaxed (soft) or exact (hard), with a gradient.

    .. math:: y = \mathrm{softmax}((\theta + G) / \tau), \qquad G_j \sim \mathrm{Gumbel}(0, 1) \text{ iid}

    and with ``hard=True`` the one-hot of :math:`\arg\max_j (\theta_j + G_j)`, which has the law
    :math:`\mathrm{softmax}(\theta)` exactly, whatever tau is. Soft and hard draws of one seed share their argmax.

    Args:
        logits: unnormalised log-probabilities, ``(..., K)`` (or K at ``dim``), any floating dtype, any strides.
        tau: relaxes the draw, never changes its law: > 0, a number or a tensor of one element, or one per row (the
            shape of the logits with 1 at ``dim``). Soft draws tend to one-hots as tau tends to 0, to 1/K as it grows.
        hard: return a one-hot, bit-exact in every dtype, in place of the relaxed draw.
        dim: the dimension of the categories.
        mask: bool, True = allowed, broadcasts to the logits. A forbidden category has zero mass and zero gradient.
        noise: False leaves G out: ``softmax(logits / tau)``, or the one-hot of the argmax. The evaluation mode. It
            takes no seed, generator or rows: they would be ignored.
        seed: int or 0-d int64 tensor; the draw is then a pure function of the arguments. An int64 tensor of the
            batch's shape, or of its first dimensions, is a seed for every sample, which then draws what it draws alone
            with its seed: the ids of its rows begin at 0 again. :func:`fold_in` makes such seeds.
        generator: where the seed comes from otherwise; default: torch's default generator of the logits' device.
        rows: keys the noise by the caller's ids. An int is the id of the first row, the others count on from it. An
            int64 tensor of the batch's shape (that of the logits without ``dim``) is an id for every row; one of the
            batch's first dimensions is an id for every sample, whose n rows are then id * n, ..., id * n + n - 1.
            Default 0: the flattened index over the batch.
        col_start: the index of the first category, for logits that are one block of the categories of a wider draw (a
            shard): its scores, noise included, are then that block of the wider draw's.

    Returns:
        Tensor with the shape, dtype, device and layout of the logits. A row with nothing allowed is all zero; a row
        with NaN or +inf among its allowed logits is NaN, and so is its gradient. Computed in float32 (float64 for
        float64), then cast.

    Gradient:
        Soft: that of y, exact for :math:`E[f(y)]`, so biased for the discrete objective; the bias vanishes with tau and
        the variance grows like 1/tau. Hard: the straight-through Gumbel-softmax estimator, the soft draw's Jacobian at
        the same noise; biased. ``tau`` gets its own gradient. ``noise=False, hard=True`` has that of the softmax.

    Raises:
        TypeError, ValueError, IndexError: naming the argument, what it got and what is allowed.

    Example:
        >>> logits = torch.tensor([[1.0, 2.0, 3.0], [2.0, 1.0, 0.5]])
        >>> softdraw.gumbel_softmax(logits, tau=1.0, seed=0)
        tensor([[0.2233, 0.1455, 0.6313],
                [0.7805, 0.0630, 0.1565]])
        >>> softdraw.gumbel_softmax(logits, tau=1.0, hard=True, seed=0)
        tensor([[0., 0., 1.],
                [1., 0., 0.]])

    Source:
        Jang, Gu and Poole (2017), "Categorical reparameterization with Gumbel-softmax", eqs. 1 and 2;
        Maddison, Mnih and Teh (2017), "The concrete distribution", eq. 10.
    """
    if misplaced or unknown:
        raise call_error(misplaced, unknown)
    if has_torch_function_variadic(logits, tau, mask, seed, rows) and stands_in(logits, tau, mask, seed, rows):
        options = {"dim": dim, "mask": mask, "noise": noise, "seed": seed, "generator": generator, "rows": rows}
        return handed_over(gumbel_softmax, logits, tau, hard, **options, col_start=col_start)
    if noise is not True or (hard is not False and hard is not True):
        check_flags(hard, noise, seed, generator, rows)
    x, dim = prepare_logits(logits, dim)
    relaxation = prepare_tau(tau, logits, dim)
    # Defaults are not checked, because a small draw takes only microseconds.
    ids = None if type(rows) is int and rows == 0 and type(seed) is not Tensor else rows_of(rows, x, seed)
    allowed = None if mask is None else prepare_mask(mask, logits, dim)
    if type(col_start) is not int or col_start:
        col_start = check_col_start(col_start, x.shape[-1])
    if type(x) not in PLAIN and split_over_categories(x):
        from softdraw.distributed import dtensor

        check_first_column(col_start)
        y = dtensor.gumbel_softmax(x, relaxation, hard, noise, seed, generator, ids, allowed)
        return y if x is logits else y.movedim(-1, dim)
    operation = draws.gumbel_softmax_hard if hard else draws.gumbel_softmax_soft
    if noise:
        y = operation.seeded(seed, generator, x, relaxation, ids, allowed, col_start)
    else:
        y = operation(x, relaxation, None, ids, allowed, col_start)
    return y if x is logits else y.movedim(-1, dim)


@not_scripted
def gumbel_max(
    logits: Tensor,
    *,
    dim: int = -1,
    mask: Tensor | None = None,
    sample_shape: Sequence[int] = (),
    seed: int | Tensor | None = None,
    generator: torch.Generator | None = None,
    rows: int | Tensor = 0,
    col_start: int = 0,
) -> Tensor:
    r"""Draw category indices from the categorical law of ``logits``, exactly.

    .. math:: x = \arg\max_j (\theta_j + G_j) \sim \mathrm{Categorical}(\mathrm{softmax}(\theta))

    Args:
        logits: unnormalised log-probabilities, ``(..., K)`` (or K at ``dim``), any floating dtype, any strides.
        dim: the dimension of the categories.
        mask: bool, True = allowed, broadcasts to the logits. A forbidden category is never drawn.
        sample_shape: shape of independent draws; each has a noise stream of its own, and the first is the plain draw.
        seed, generator, rows, col_start: as for :func:`gumbel_softmax`, whose one-hot is 1 at the index.

    Returns:
        int64 of shape ``(*sample_shape, *batch)``, batch being the shape of the logits without ``dim``. Ties go to the
        smallest index. -1 where no draw exists: nothing allowed, or NaN or +inf among the allowed logits.

    Gradient:
        None: an index has no gradient.

    Raises:
        TypeError, ValueError, IndexError: naming the argument, what it got and what is allowed.

    Example:
        >>> logits = torch.tensor([[1.0, 2.0, 3.0], [2.0, 1.0, 0.5]])
        >>> softdraw.gumbel_max(logits, seed=0)
        tensor([2, 0])
        >>> softdraw.gumbel_max(logits, sample_shape=(4,), seed=0)
        tensor([[2, 0],
                [1, 0],
                [2, 0],
                [2, 1]])

    Source:
        Gumbel (1954), "Statistical theory of extreme values"; Maddison, Tarlow and Minka (2014), "A* sampling", sec. 2.
    """
    if has_torch_function_variadic(logits, mask, seed, rows) and stands_in(logits, mask, seed, rows):
        options = {"dim": dim, "mask": mask, "sample_shape": sample_shape, "seed": seed, "generator": generator}
        return handed_over(gumbel_max, logits, **options, rows=rows, col_start=col_start)
    x, dim = prepare_logits(logits, dim)
    x = x.detach()
    shape = prepare_shape("sample_shape", sample_shape, most=STREAMS)
    ids = rows_of(rows, x, seed)
    allowed = prepare_mask(mask, logits, dim)
    col_start = check_col_start(col_start, x.shape[-1])
    if type(x) not in PLAIN and split_over_categories(x):
        from softdraw.distributed import dtensor

        check_first_column(col_start)
        index = dtensor.gumbel_max(x, math.prod(shape), seed, generator, ids, allowed)
        return index.view((*shape, *x.shape[:-1])) if shape else index.squeeze(0)
    index = draws.gumbel_max.seeded(seed, generator, x, ids, allowed, math.prod(shape), col_start)
    return index.view((*shape, *x.shape[:-1])) if shape else index.squeeze(0)


@overridable
def straight_through(hard: Tensor, soft: Tensor) -> Tensor:
    r"""The value of ``hard``, bit for bit, with the gradient of ``soft``.

    .. math:: y = h, \qquad \partial y / \partial s = I, \quad \partial y / \partial h = 0

    The usual ``(hard + soft) - soft.detach()`` is off by a rounding error for most values of soft; this is not.

    Args:
        hard: the value, any shape.
        soft: of the same shape and dtype; receives the whole gradient.

    Returns:
        A new tensor equal to ``hard``.

    Gradient:
        The identity for ``soft``, zero for ``hard``: the straight-through estimator, biased unless the loss is linear.

    Raises:
        TypeError: ``hard`` or ``soft`` is not floating point, or their dtypes differ. ValueError: their shapes differ.

    Example:
        >>> soft = torch.tensor([0.2, 0.7, 0.1], requires_grad=True)
        >>> hard = torch.tensor([0.0, 1.0, 0.0])
        >>> softdraw.straight_through(hard, soft)
        tensor([0., 1., 0.], grad_fn=<_StraightThroughBackward>)
        >>> (softdraw.straight_through(hard, soft) * torch.tensor([1.0, 2.0, 3.0])).sum().backward()
        >>> soft.grad
        tensor([1., 2., 3.])

    Source:
        Bengio, Léonard and Courville (2013), "Estimating or propagating gradients through stochastic neurons", sec. 4.
    """
    check_floating("soft", soft)
    check_tensor("hard", hard)
    if hard.dtype != soft.dtype:
        raise TypeError(
            f"hard must be a tensor of soft's dtype {soft.dtype}, got {given(hard)}: write hard.to(soft.dtype)"
        )
    if hard.shape != soft.shape:
        raise ValueError(
            f"hard and soft must have one shape, got {tuple(hard.shape)} and {tuple(soft.shape)}: "
            "expand or reshape one of them first"
        )
    check_device("hard", hard, soft.device, "soft")
    return value_of(hard, soft)
