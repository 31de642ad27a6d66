"""An index drawn from logits at a temperature, with its log-probability and the entropy of the law."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.overrides import has_torch_function_variadic

from softdraw.arguments import check_col_start, prepare_logits, prepare_mask, prepare_shape, rows_of
from softdraw.indices.temperature import prepare_temperature
from softdraw.indices.truncation import kept, prepare_bounds
from softdraw.operators import indices
from softdraw.overrides import handed_over, not_scripted, stands_in
from softdraw.tensors import check_first_column, split_over_categories

STREAMS = 2**31  # the independent draws that one seed has


class IndexDraw(NamedTuple):
    """What :func:`draw_index` returns: three tensors of the shape ``(*sample_shape, *batch)``."""

    index: Tensor  # pyright: ignore[reportIncompatibleMethodOverride]  (tuple.index, which nobody calls here)
    log_prob: Tensor
    entropy: Tensor


@not_scripted
def draw_index(
    logits: Tensor,
    *,
    temperature: float | Tensor = 1.0,
    top_k: int | Tensor | None = None,
    top_p: float | Tensor | None = None,
    min_p: float | Tensor | None = None,
    mask: Tensor | None = None,
    dim: int = -1,
    seed: int | Tensor | None = None,
    generator: torch.Generator | None = None,
    rows: int | Tensor = 0,
    col_start: int = 0,
    sample_shape: Sequence[int] = (),
) -> IndexDraw:
    r"""Draw an index from logits at a temperature, exactly, with its log-probability and the law's entropy.

    .. math:: i = \arg\max_j (x_j / T + G_j) \sim \mathrm{softmax}(x / T), \qquad
        \ell = \log p_i, \quad H = -\sum_j p_j \log p_j, \quad p = \mathrm{softmax}(x)

    The log-probability and the entropy are those of the logits *without* the temperature. Tempered probabilities tend
    to 1 as T tends to 0, and then no longer say how sure the model is of a token. On the CPU one pass over the logits
    makes all three numbers, and without truncation nothing of the logits' size is allocated.

    Args:
        logits: x, unnormalised log-probabilities, ``(..., K)`` (K at ``dim``), any floating dtype, any strides.
        temperature: T >= 0 of the law, a number or a tensor of one element, or one for each row: a tensor of the
            batch's shape, or one that broadcasts to that of the logits with 1 at ``dim``. 0 is the argmax. At 1 the
            index is that of :func:`gumbel_max`, bit for bit.
        top_k: keep the k largest logits, and all that equal the k-th. >= 1; K or more keeps all.
        top_p: of these, keep the smallest set of the most probable at temperature T that has probability ``top_p`` at
            least, and all that equal its last one. In (0, 1]; 1 keeps all.
        min_p: of these, keep what has ``min_p`` times the largest probability at least. In [0, 1]; 0 keeps all. Each
            of the three may be a tensor as the temperature may. Values out of range are an error where they can be
            read, and an assertion on an accelerator and in compiled code; under torch.func such a row keeps its largest
            logits alone.
        mask: bool, True = allowed, broadcasts to the logits. A forbidden category is never drawn.
        dim: the dimension of the categories.
        seed, generator, rows, col_start: as for :func:`gumbel_softmax`.
        sample_shape: shape of independent draws, each with a noise stream of its own; the first is the plain draw.

    Returns:
        ``IndexDraw(index, log_prob, entropy)``, each ``(*sample_shape, *batch)``: int64, and float32 (float64 for
        float64 logits). p is over what may be drawn: what the mask allows and the truncation keeps. Ties of scores go
        to the smallest index. A row with NaN or +inf among its allowed logits has index -1 and NaN; a row with nothing
        allowed has index -1, log-probability -inf and entropy 0.

    Gradient:
        Of ``log_prob``, :math:`e_i - p`, and of ``entropy``, :math:`-p (\log p + H)`: exact, with what is kept held
        fixed. The index has none, and neither has the temperature.

    Raises:
        TypeError, ValueError, IndexError: naming the argument, what it got and what is allowed.

    Example:
        >>> logits = torch.tensor([[1.0, 2.0, 3.0], [2.0, 1.0, 0.5]])
        >>> index, log_prob, entropy = softdraw.draw_index(logits, temperature=0.5, seed=0)
        >>> index, log_prob, entropy
        (tensor([2, 0]), tensor([-0.4076, -0.4644]), tensor([0.8324, 0.9060]))
        >>> softdraw.draw_index(logits, top_k=2, seed=0).log_prob
        tensor([-0.3133, -0.3133])

    Source:
        Gumbel (1954), "Statistical theory of extreme values"; Holtzman et al. (2020), "The curious case of neural text
        degeneration", for top_p; Nguyen et al. (2025), "Turning up the heat: min-p sampling", for min_p.
    """
    tensors = (logits, temperature, top_k, top_p, min_p, mask, seed, rows)
    if has_torch_function_variadic(*tensors) and stands_in(*tensors):
        options = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "min_p": min_p, "mask": mask, "dim": dim}
        keys = {"seed": seed, "generator": generator, "rows": rows, "col_start": col_start}
        return handed_over(draw_index, logits, **options, **keys, sample_shape=sample_shape)
    x, dim = prepare_logits(logits, dim)
    t = prepare_temperature(temperature, logits, dim)
    split = split_over_categories(x)
    if split and not (top_k is None and top_p is None and min_p is None):
        raise ValueError(
            "top_k, top_p and min_p must be None where logits is a DTensor split over its categories: truncation "
            "needs whole rows: redistribute it first, to a shard of another dimension or Replicate()"
        )
    bounds = prepare_bounds(top_k, top_p, min_p, logits, dim)
    shape = prepare_shape("sample_shape", sample_shape, most=STREAMS)
    ids = rows_of(rows, x, seed)
    allowed = kept(x, prepare_mask(mask, logits, dim), t, bounds)
    col_start = check_col_start(col_start, x.shape[-1])
    if split:
        from softdraw.distributed import dtensor

        check_first_column(col_start)
        index, log_prob, entropy = dtensor.draw_index(x, t, math.prod(shape), seed, generator, ids, allowed)
    else:
        index, log_prob, entropy = indices.drawn(x, seed, generator, ids, allowed, t, math.prod(shape), col_start)
    if not shape:
        return IndexDraw(index.squeeze(0), log_prob.squeeze(0), entropy)
    whole = (*shape, *x.shape[:-1])
    return IndexDraw(index.view(whole), log_prob.view(whole), entropy.expand(whole))
