"""Draws of indices in Triton: the one of the highest score at a temperature, what the law says about it, or the k best.

The k best of a row are found in two steps: a kernel writes 8 bytes for each category, which order them, and torch.topk
takes the largest. It has no order among equal elements, so equal scores have different keys (``index_kernels.keys``);
in float64 the scores have no room for that, and a stable sort takes the place of topk. Memory for the keys of some
draws is taken at a time.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from softdraw.arguments import Draw, Fields, Tau, compute_dtype
from softdraw.kernels import reference
from softdraw.kernels.reference import checked_temperature
from softdraw.kernels.triton import index_kernels, launching, layout
from softdraw.kernels.triton.launching import contiguous, operands
from softdraw.kernels.triton.layout import Tile, each, index_tile, layout_of

_KEYS = 2**24  # keys in memory at a time
_ONE = {"taus": None, "tau": 1.0, "EACH_TAU": False}  # scores at temperature 1 are those of every draw, bit for bit


def index(draw: Fields, samples: int) -> Tensor:
    """The exact draw as an index: int64 of shape ``(samples, *batch)``; sample i is noise stream i."""
    return tempered(Draw(*draw)._replace(tau=1.0), samples)


def best(draw: Fields, samples: int) -> tuple[Tensor, Tensor]:
    """``index``, and the score there: -inf where nothing is allowed, NaN in a row with NaN or +inf."""
    draw = Draw(*draw)._replace(tau=1.0)
    lead = draw.col_start % 4
    if lead:  # a thread takes four columns, from a multiple of four on: those before the block are forbidden
        padded = torch.nn.functional.pad(draw.logits, (lead, 0), value=-torch.inf)
        mask = None if draw.mask is None else torch.nn.functional.pad(draw.mask, (lead, 0), value=False)
        draw = draw._replace(logits=padded, mask=mask, col_start=draw.col_start - lead)
    draw, named = _prepared(draw)
    out = torch.empty((samples, *draw.logits.shape[:-1]), dtype=torch.int64, device=draw.logits.device)
    score = torch.empty_like(out, dtype=compute_dtype(draw.logits.dtype))
    if out.numel():
        highest(named, draw.logits, out, score)
    return torch.where(out < 0, -1, out - lead), score.masked_fill_(score == torch.inf, torch.nan)


def tempered(draw: Fields, samples: int) -> Tensor:
    """The index of the largest x + tau G, ``(samples, *batch)``: tau is the temperature of the law here."""
    draw = Draw(*draw)
    if draw.col_start % 4:
        return reference.tempered(draw, samples)
    draw, named = _prepared(draw)
    out = torch.empty((samples, *draw.logits.shape[:-1]), dtype=torch.int64, device=draw.logits.device)
    if out.numel():
        highest(named, draw.logits, out)
    return out


def drawn(draw: Fields, samples: int) -> tuple[Tensor, Tensor, Tensor]:
    """``tempered``; the logits at the indices; and max x, log sum exp(x - max x) and sum p log p of the law without
    temperature, ``(*batch, 3)``. Numbers are float64."""
    draw = Draw(*draw)
    if draw.col_start % 4:
        return reference.drawn(draw, samples)
    draw, named = _prepared(draw)
    batch, device = draw.logits.shape[:-1], draw.logits.device
    out = torch.empty((samples, *batch), dtype=torch.int64, device=device)
    picks = torch.empty((samples, *batch), dtype=torch.float64, device=device)
    laws = torch.empty((*batch, 3), dtype=torch.float64, device=device)
    if out.numel():
        highest(named | {"picks": picks, "laws": laws}, draw.logits, out)
    return out, picks, laws


def topk(draw: Fields, samples: int, k: int) -> Tensor:
    """The indices of the k largest x + tau G, best first, ``(samples, *batch, k)``; -1 where there are no more."""
    draw = Draw(*draw)
    if draw.col_start % 4:
        return reference.topk(draw, samples, k)
    draw, named = _prepared(draw)
    rows, cols = named["rows"], named["cols"]
    out = torch.full((samples * rows, k), -1, dtype=torch.int64, device=draw.logits.device)
    if out.numel():
        named["ONCE"] = samples == 1
        step, some = max(1, _KEYS // cols), min(k, cols)
        kind = torch.float64 if draw.logits.dtype == torch.float64 else torch.int64
        for start in range(0, len(out), step):
            part = out[start : start + step]
            made = torch.empty((len(part), cols), dtype=kind, device=out.device)
            cut = index_tile(len(part), cols, draw.logits.dtype)
            more = {"out": made, "start": start, "draws": start + len(part)}
            launching.launch(index_kernels.keys, cut, named | more)
            part[:, :some] = _best_scores(made, some) if kind == torch.float64 else _best_keys(made, some)
    return out.view(samples, *draw.logits.shape[:-1], k)


def highest(named: dict[str, Any], logits: Tensor, ats: Tensor, tops: Tensor | None = None) -> None:
    """Write the place of the highest score of every draw and, where asked, that score; with "picks" and "laws" among
    the operands, the logit there and the numbers of the law."""
    cut = index_tile(ats.numel(), named["cols"], logits.dtype)
    named = {"picks": None, "laws": None} | named
    named |= {"draws": ats.numel(), "ONCE": ats.numel() == named["rows"], "ats": ats, "tops": tops}
    if cut.splits == 1:
        launching.launch(index_kernels.index, cut, named)
        return
    n, dtype = ats.numel() * cut.splits, compute_dtype(logits.dtype)
    parts = {"tops": torch.empty(n, dtype=dtype, device=ats.device), "ats": ats.new_empty(n)}
    whole = {"row_tops": tops, "row_ats": ats, "row_picks": named["picks"], "BLOCK": layout.PARTS}
    laws = named["laws"]
    if laws is not None:
        parts["picks"] = torch.empty(n, dtype=dtype, device=ats.device)
        parts["laws"] = torch.empty((named["rows"] * cut.splits, 4), dtype=dtype, device=ats.device)
    launching.launch(index_kernels.index, cut, named | parts)
    launching.launch(
        index_kernels.combine_index, Tile(1, 4, cut.splits, ats.numel(), 4), {"picks": None} | parts | whole
    )
    if laws is not None:
        of_rows = {"laws": parts["laws"], "row_laws": laws, "BLOCK": layout.PARTS}
        launching.launch(index_kernels.combine_law, Tile(1, 4, cut.splits, named["rows"], 4), of_rows)


def _prepared(draw: Draw) -> tuple[Draw, dict[str, Any]]:
    """The draw in a layout that kernels know, and its operands. At temperature 0, a number, no noise is made."""
    draw = draw._replace(logits=draw.logits.resolve_neg())
    if type(draw.tau) is float and draw.tau == 0:
        draw = draw._replace(seed=None)
    form = layout_of({"in": draw.logits}, draw.mask)
    if form is None:
        draw = contiguous(draw)
        form = layout_of({"in": draw.logits}, draw.mask)
    assert form is not None
    return draw, form | operands(draw) | _temperature(draw.tau, draw.logits)


def _temperature(tau: Tau, x: Tensor) -> dict[str, Any]:
    """The temperature of the law as a pointer or else as a number."""
    if not isinstance(tau, Tensor):
        return _ONE if tau == 1 else launching.number("tau", float(tau), x) | {"EACH_TAU": False}
    taus, each_row = each(checked_temperature(tau, compute_dtype(x.dtype)), x.shape[:-1])
    return {"taus": taus, "tau": 1.0, "EACH_TAU": each_row}


def _best_keys(keys: Tensor, k: int) -> Tensor:
    """The columns of the k largest keys of each row."""
    best = keys.topk(k, dim=-1).values
    order = best >> 32
    none = (order == index_kernels.NOTHING) | (order[:, :1] == index_kernels.BAD)
    return (0xFFFFFFFF - (best & 0xFFFFFFFF)).masked_fill_(none, -1)


def _best_scores(scores: Tensor, k: int) -> Tensor:
    """The columns of the k largest scores of each row."""
    top, at = scores.sort(dim=-1, descending=True, stable=True)
    bad = (scores.isnan() | (scores == torch.inf)).any(-1, keepdim=True)
    return at.masked_fill_(bad | (top == -torch.inf), -1)[:, :k]
