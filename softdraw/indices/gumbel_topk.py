"""k categories without replacement, in the order in which they would be drawn."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.overrides import has_torch_function_variadic

from softdraw.arguments import check_col_start, prepare_logits, prepare_mask, prepare_shape, rows_of
from softdraw.checks import INTEGERS, check_device, check_tensor, count, given
from softdraw.indices.draw_index import STREAMS
from softdraw.indices.temperature import prepare_temperature
from softdraw.operators import indices
from softdraw.overrides import handed_over, not_scripted, stands_in
from softdraw.tensors import is_plain


@not_scripted
def gumbel_topk(
    logits: Tensor,
    k: int | Tensor,
    *,
    temperature: float | Tensor = 1.0,
    mask: Tensor | None = None,
    dim: int = -1,
    seed: int | Tensor | None = None,
    generator: torch.Generator | None = None,
    rows: int | Tensor = 0,
    col_start: int = 0,
    sample_shape: Sequence[int] = (),
) -> Tensor:
    r"""Draw k categories without replacement: those of the k largest perturbed logits, in their order.

    .. math:: (i_1, \ldots, i_k) = \mathrm{top}_k (x_j / T + G_j), \qquad
        P(i_1, \ldots, i_k) = \prod_{m=1}^{k} \frac{\exp(x_{i_m} / T)}{\sum_{j \notin \{i_1, \ldots, i_{m-1}\}}
        \exp(x_j / T)}

    This is the law of Plackett and Luce: each category is drawn from what those before it have left. The first one is
    the index of :func:`draw_index` with the same arguments.

    Args:
        logits: x, unnormalised log-probabilities, ``(..., K)`` (K at ``dim``), any floating dtype, any strides.
        k: how many, an int >= 0; or an integer tensor of the batch's shape (that of the logits without ``dim``), one
            for each row. The tensor is read, so it has to be an int under torch.compile and torch.func.
        temperature: T >= 0, a number or one for each row, as for :func:`draw_index`; 0 gives the k largest logits.
        mask: bool, True = allowed, broadcasts to the logits. A forbidden category is never drawn.
        dim: the dimension of the categories.
        seed, generator, rows, col_start: as for :func:`gumbel_softmax`.
        sample_shape: shape of independent draws, each with a noise stream of its own; the first is the plain draw.

    Returns:
        int64 of shape ``(*sample_shape, *batch, k)``, or with the largest of the k. A row ends in -1 where its own k is
        smaller, or where no more categories are allowed; a row with NaN or +inf among its allowed logits is all -1.
        Ties of scores go to the smallest index.

    Gradient:
        None: an index has no gradient.

    Raises:
        TypeError, ValueError, IndexError: naming the argument, what it got and what is allowed.

    Example:
        >>> logits = torch.tensor([[1.0, 2.0, 3.0], [2.0, 1.0, 0.5]])
        >>> softdraw.gumbel_topk(logits, 2, seed=0)
        tensor([[2, 0],
                [0, 2]])
        >>> softdraw.gumbel_topk(logits, torch.tensor([1, 3]), seed=0)
        tensor([[ 2, -1, -1],
                [ 0,  2,  1]])

    Source:
        Plackett (1975), "The analysis of permutations"; Yellott (1977), "The relationship between Luce's choice axiom,
        Thurstone's theory of comparative judgment, and the double exponential distribution", theorem 5; Kool, van Hoof
        and Welling (2019), "Stochastic beams and where to find them".
    """
    if has_torch_function_variadic(logits, k, temperature, mask, seed, rows) and stands_in(
        logits, k, temperature, mask, seed, rows
    ):
        options = {"temperature": temperature, "mask": mask, "dim": dim, "seed": seed, "generator": generator}
        return handed_over(gumbel_topk, logits, k, **options, rows=rows, col_start=col_start, sample_shape=sample_shape)
    x, dim = prepare_logits(logits, dim)
    most, each = _prepare_k(k, x)
    t = prepare_temperature(temperature, logits, dim)
    shape = prepare_shape("sample_shape", sample_shape, most=STREAMS)
    ids = rows_of(rows, x, seed)
    allowed = prepare_mask(mask, logits, dim)
    col_start = check_col_start(col_start, x.shape[-1])
    at = indices.topk.seeded(seed, generator, x.detach(), ids, allowed, t, math.prod(shape), col_start, most)
    if each is not None:
        at = at.masked_fill(torch.arange(most, device=at.device) >= each.unsqueeze(-1), -1)
    return at.view(*shape, *x.shape[:-1], most) if shape else at.squeeze(0)


def _prepare_k(k: int | Tensor, x: Tensor) -> tuple[int, Tensor | None]:
    """The width of the result, and k for each row where it is a tensor."""
    if not isinstance(k, Tensor):
        return count("k", k, 0, "how many categories are drawn"), None
    check_tensor("k", k)
    if k.dtype not in INTEGERS:
        raise TypeError(f"k must be an int or an int64 tensor, one k for each row, got {given(k)}: write k.long()")
    check_device("k", k, x.device)
    if k.shape != x.shape[:-1]:
        raise ValueError(
            f"k of shape {tuple(k.shape)} does not give one to every row of a batch of shape {tuple(x.shape[:-1])}: "
            "give it that shape, or an int for all rows"
        )
    if not is_plain(k) or not is_plain(x) or k.is_meta:
        raise ValueError(
            "k must be an int where its values cannot be read (torch.compile, torch.func, DTensors, a meta tensor), "
            f"got {given(k)}: draw the largest k, and drop the columns of a row from its own k on"
        )
    k = k.long()
    least = int(k.min()) if k.numel() else 0
    if least < 0:
        raise ValueError(f"k must be 0 or more in every row, got {least}: how many categories are drawn")
    return int(k.max()) if k.numel() else 0, k
