"""Penalties on how a batch uses its categories; each is a function of the batch's mean law, not a mean over rows."""

from __future__ import annotations

from torch import Tensor

from softdraw.arguments import compute_dtype
from softdraw.checks import check_device, check_floating, check_real, integer, number
from softdraw.kernels.native import USAGE
from softdraw.kernels.pass_reference import Rows, mean_row, total_over, weights
from softdraw.losses.common import aligned, check_reduction, kept_mask, kept_rows, reduce, without
from softdraw.operators import bits, passes
from softdraw.operators.bits import Bits
from softdraw.overrides import overridable


@overridable
def diversity(
    logits: Tensor,
    *,
    dim: int = -1,
    group_dim: int | None = None,
    mask: Tensor | None = None,
    weight: Tensor | None = None,
    reduction: str = "mean",
) -> Tensor:
    r"""How far the batch is from using all categories alike: 0 when it does, (K - 1)/K when one takes everything.

    .. math:: \ell = \frac{K - \exp H(\bar q)}{K}, \qquad \bar q = \sum_i w_i\,\mathrm{softmax}(x_i) / \sum_i w_i

    Args:
        logits: x ``(..., K)`` (K at ``dim``), any floating dtype; the mean runs over everything but ``dim`` and
            ``group_dim``.
        dim: the dimension of the categories.
        group_dim: a dimension of latents with codebooks of their own; each has its own mean law and its own loss.
        mask: bool, True = counted, of the shape of the logits without ``dim``, 1 where it is the same along a
            dimension: which rows make up the mean law.
        weight: of a row in the mean law, shapes as for ``mask``.
        reduction: over the groups, ``"mean"``, ``"sum"`` or ``"none"``; without ``group_dim`` there is one.

    Returns:
        float32 (float64 for float64 logits), 0-d, or ``(groups,)`` with ``"none"`` and ``group_dim``.

    Gradient:
        Exact; zero for a category of zero mass, and for rows left out.

    Raises:
        TypeError, ValueError, IndexError: naming the argument, what it got and what is allowed.

    Example:
        >>> softdraw.losses.diversity(torch.tensor([[9.0, 0.0], [0.0, 9.0]])).round(decimals=6)
        tensor(0.)
        >>> softdraw.losses.diversity(torch.tensor([[9.0, 0.0], [9.0, 0.0]]))
        tensor(0.4994)

    Source:
        Baevski et al. (2020), "wav2vec 2.0", eq. 4, and its released code, which takes the perplexity.
    """
    rows = _grouped(kept_rows(logits, dim, mask, weight, reduction), logits, dim, group_dim)
    return passes.usage(rows, USAGE["Diversity"], group_dim is not None, reduction=reduction)


@overridable
def load_balance(
    logits: Tensor,
    chosen: Tensor | None = None,
    *,
    dim: int = -1,
    group_dim: int | None = None,
    mask: Tensor | None = None,
    weight: Tensor | None = None,
    reduction: str = "mean",
) -> Tensor:
    r"""Keeps a router's experts equally busy: 1 when they are, K when one expert takes every row.

    .. math:: \ell = K \sum_k f_k \bar q_k, \qquad
        f = \text{mean of the choices}, \quad \bar q = \text{mean of } \mathrm{softmax}(x)

    Args:
        logits: x ``(..., K)`` (K at ``dim``), any floating dtype.
        chosen: the experts taken, of the logits' shape: one-hots, or k-hots for top-k routing (f is scaled to sum to
            1). Default: the one-hot of each row's argmax. It gets no gradient.
        dim, group_dim, mask, weight, reduction: as for :func:`diversity`.

    Returns:
        float32 (float64 for float64 logits), 0-d, or ``(groups,)`` with ``"none"`` and ``group_dim``.

    Gradient:
        Exact for :math:`\bar q`, with f held constant, as the source has it.

    Raises:
        TypeError, ValueError, IndexError: naming the argument, what it got and what is allowed.

    Example:
        >>> x = torch.tensor([[4.0, 0.0], [4.0, 0.0], [4.0, 0.0], [0.0, 4.0]])
        >>> softdraw.losses.load_balance(x)
        tensor(1.2410)

    Source:
        Fedus, Zoph and Shazeer (2022), "Switch transformers", eqs. 4 to 6, without its coefficient.
    """
    rows = _grouped(kept_rows(logits, dim, mask, weight, reduction), logits, dim, group_dim)
    if chosen is not None:
        _check_chosen(chosen, logits)
        dtype = compute_dtype(logits.dtype)
        choices = Rows(chosen.detach().to(dtype).movedim(dim, -1))
        rows = rows._replace(other=_mean(_grouped(choices, logits, dim, group_dim).x, rows, group_dim is not None))
    return passes.usage(rows, USAGE["Balance"], group_dim is not None, reduction=reduction)


@overridable
def keep_ratio(
    logits: Tensor,
    ratio: float,
    *,
    dim: int | None = None,
    mask: Tensor | None = None,
    weight: Tensor | None = None,
    reduction: str = "mean",
) -> Tensor:
    r"""Holds the expected share of open gates at a given ratio.

    .. math:: \ell = \Big(\rho - \sum_i w_i\,\sigma(x_i) / \sum_i w_i\Big)^2

    Args:
        logits: x of Bernoulli gates, any shape, any floating dtype.
        ratio: rho, the share to keep, from 0 to 1.
        dim: the dimension over which the share is taken, one loss for every other index (a token dimension: every
            example keeps its own share). Default: over everything, one loss.
        mask: bool, True = counted, of the shape of the logits, 1 where it is the same along a dimension: which gates
            there are.
        weight: of a gate in the share (its cost), shapes as for ``mask``.
        reduction: over the losses: ``"mean"`` over those that have a gate, ``"sum"``, ``"none"``.

    Returns:
        float32 (float64 for float64 logits), 0-d, or the shape of the logits without ``dim`` with ``"none"``.

    Gradient:
        Exact for the expected share; no draw is needed.

    Raises:
        TypeError, ValueError, IndexError: naming the argument, what it got and what is allowed.

    Example:
        >>> softdraw.losses.keep_ratio(torch.tensor([[9.0, 9.0, -9.0, -9.0], [9.0, 9.0, 9.0, 9.0]]), 0.5, dim=-1)
        tensor(0.1249)

    Source:
        Rao et al. (2021), "DynamicViT", eq. 11, with the expected share in place of the drawn one.
    """
    ratio = number("ratio", ratio, "a number from 0 to 1")
    if not 0 <= ratio <= 1:
        raise ValueError(f"ratio must be from 0 to 1, got {ratio}")
    check_floating("logits", logits)
    mask = kept_mask(mask, logits, "the logits")
    if logits.numel() and bits.takes(logits, weight):
        return _share_in_one_pass(logits, ratio, dim, mask, weight, reduction)
    x = without(logits.to(compute_dtype(logits.dtype)), mask)
    if weight is not None:
        weight = aligned("weight", weight, x, "the logits")
    w = weights(x, mask, weight)
    over = tuple(range(x.dim())) if dim is None else (_gate_dim(dim, x) % x.dim(),)
    share = mean_row(x.sigmoid().unsqueeze(-1), w, over).squeeze(-1)
    return reduce((share - ratio) ** 2, total_over(w, over) != 0, None, reduction)


def _share_in_one_pass(
    logits: Tensor, ratio: float, dim: int | None, mask: Tensor | None, weight: Tensor | None, reduction: str
) -> Tensor:
    """:func:`keep_ratio` by a kernel."""
    dtype = compute_dtype(logits.dtype)
    x = logits if logits.dtype in bits.CODES else logits.to(dtype)
    if weight is not None:
        weight = aligned("weight", weight, logits, "the logits").to(dtype)
    batch, rows = (), 1
    if dim is not None:
        at = _gate_dim(dim, x)
        x = x.movedim(at, -1)
        mask, weight = (t if t is None else t.movedim(at, -1) for t in (mask, weight))
        batch, rows = x.shape[:-1], x.shape[:-1].numel()
    check_reduction(reduction)
    read = Bits(x, None, weight, None, mask, ratio, bits.REDUCTIONS[reduction], False, bits.ANY_NUMBER, rows)
    return bits.share(read).view(batch if reduction == "none" else ())


def _gate_dim(dim: int, x: Tensor) -> int:
    """``dim`` of :func:`keep_ratio`, checked against the gates ``x``."""
    n = x.dim()
    dim = integer("dim", dim, "the dimension that a share is taken over, or None for all")
    if not -n <= dim < n:
        allowed = f"from {-n} to {n - 1}, or None" if n else "None"
        raise IndexError(f"dim must be {allowed} for logits of shape {tuple(x.shape)}, got {dim}")
    return dim


def _check_chosen(chosen: Tensor, logits: Tensor) -> None:
    check_real("chosen", chosen)
    check_device("chosen", chosen, logits.device)
    if chosen.shape != logits.shape:
        raise ValueError(
            f"chosen must have the shape of the logits, {tuple(logits.shape)}, got {tuple(chosen.shape)}: "
            "write torch.nn.functional.one_hot(index, K) for indices"
        )


def _grouped(rows: Rows, logits: Tensor, dim: int, group_dim: int | None) -> Rows:
    """The rows with the dimension of the groups first, where there is one."""
    if group_dim is None:
        return rows
    group = _group(logits, dim, group_dim)
    keep, weight = (None if t is None else t.movedim(group, 0) for t in (rows.keep, rows.weight))
    return Rows(rows.x.movedim(group, 0), keep=keep, weight=weight)


def _mean(x: Tensor, rows: Rows, grouped: bool) -> Tensor:
    """The weighted mean of ``x`` over the rows that count, in each group."""
    w = weights(x[..., 0], rows.keep, rows.weight)
    return mean_row(
        without(x, None if rows.keep is None else rows.keep.unsqueeze(-1)), w, tuple(range(int(grouped), w.dim()))
    )


def _group(logits: Tensor, dim: int, group_dim: int) -> int:
    """``group_dim`` counted in the logits without ``dim``."""
    n = logits.dim()
    group_dim = integer("group_dim", group_dim, "a dimension of the logits, or None")
    if not -n <= group_dim < n or group_dim % n == dim % n:
        raise IndexError(
            f"group_dim must be a dimension of the logits {tuple(logits.shape)} other than dim={dim}, got {group_dim}"
        )
    return group_dim % n - (group_dim % n > dim % n)
