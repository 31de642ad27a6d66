"""The operations on the CPU, fused: each reads its inputs once and writes its output, in one pass over every row.

This file turns arguments into what csrc/call.h takes: data pointers, and a layout of strides where rows do not simply
follow one another. Noise, softmax and reductions are as in ``reference``, which these functions equal.
"""

from __future__ import annotations

import torch
from torch import Tensor

from softdraw.arguments import Fields, KernelRule, Tau, compute_dtype
from softdraw.kernels import bits_cpu, pass_cpu, reference, subset_cpu, tile_cpu
from softdraw.kernels.cpu_operands import at_temperature, layout, number_or_rows
from softdraw.kernels.native import CALL, RULES, STORAGE, address, function

_pack, _empty_like, _threads, _INT64 = CALL.pack, torch.empty_like, torch.get_num_threads, torch.int64  # looked up once
DTYPES = {getattr(torch, name): code for name, code in STORAGE.items()}
_RULES = {name: number for number, name in enumerate(RULES)}
passes, over_bits, subsets, tiles = pass_cpu, bits_cpu, subset_cpu, tile_cpu


def soft(draw: Fields) -> Tensor:
    """The relaxed draw: rows of the simplex, in the dtype and layout of the logits."""
    return _run("soft", _empty_like(draw[0]), draw)


def hard(draw: Fields) -> Tensor:
    """The exact draw as a one-hot, in the dtype and layout of the logits; tau is checked but does not change the
    draw."""
    return _run("hard", _empty_like(draw[0]), draw)


def soft_backward(y: Tensor, grad: Tensor, tau: Tau) -> Tensor:
    """The gradient for the logits of a soft draw ``y``."""
    return _run("soft_backward", _empty_like(y), (y, tau, None, None, None, 0), grad)


def hard_backward(draw: Fields, grad: Tensor) -> Tensor:
    """The straight-through gradient for the logits: that of the soft draw with the same noise, made again here."""
    return _run("hard_backward", _empty_like(draw[0]), draw, grad)


def index(draw: Fields, samples: int) -> Tensor:
    """The exact draw as an index: int64 of shape ``(samples, *batch)``; sample i is noise stream i."""
    logits = draw[0]
    out = torch.empty((samples, *logits.shape[:-1]), dtype=torch.int64, device=logits.device)
    _run("index", out, draw, samples=samples, more=_indexaddress(out))
    return out


def best(draw: Fields, samples: int) -> tuple[Tensor, Tensor]:
    """``index``, and the score there in the compute dtype: -inf where nothing is allowed, NaN in a row with NaN or
    +inf. Blocks of a wider row come together by these, bit for bit."""
    logits = draw[0]
    at = torch.empty((samples, *logits.shape[:-1]), dtype=torch.int64, device="cpu")
    score = torch.empty(at.shape, dtype=compute_dtype(logits.dtype), device="cpu")
    _run("best", score, draw, samples=samples, more=_indexaddress(at))
    return at, score


def tempered(draw: Fields, samples: int) -> Tensor:
    """The index of the largest x + tau G, ``(samples, *batch)``: tau is the temperature of the law here, and 0 the
    argmax."""
    tau = draw[1]
    return index(draw, samples) if type(tau) is float and tau == 1.0 else drawn(draw, samples)[0]


def drawn(draw: Fields, samples: int) -> tuple[Tensor, Tensor, Tensor]:
    """``tempered``; the logits at the indices, ``(samples, *batch)``; and max x, log sum exp(x - max x) and
    sum p log p of the law without temperature, ``(*batch, 3)``. Numbers are float64."""
    batch = draw[0].shape[:-1]
    at = torch.empty((samples, *batch), dtype=torch.int64, device="cpu")
    numbers = torch.empty(at.numel() + 3 * batch.numel(), dtype=torch.float64, device="cpu")
    _run("tempered", numbers, at_temperature(draw), samples=samples, more=_indexaddress(at))
    return at, numbers[: at.numel()].view(at.shape), numbers[at.numel() :].view(*batch, 3)


def topk(draw: Fields, samples: int, k: int) -> Tensor:
    """The indices of the k largest x + tau G, best first, ``(samples, *batch, k)``; -1 where there are no more."""
    at = torch.empty((samples, *draw[0].shape[:-1], k), dtype=torch.int64, device="cpu")
    _run("topk", at, at_temperature(draw), samples=samples, more=(at.data_ptr(), 0, 0.0, 0, k, False))
    return at


def hard_index(draw: Fields, samples: int | None) -> tuple[Tensor, Tensor]:
    """The exact draw as a one-hot and as an index, ``(samples, *batch, C)`` and ``(samples, *batch)``."""
    logits = draw[0]
    batch = logits.shape[:-1] if samples is None else (samples, *logits.shape[:-1])
    y = _contiguous(logits, samples)
    # Sizes one by one are quicker.
    index = logits.new_empty(*batch, dtype=_INT64) if batch else logits.new_empty((), dtype=_INT64)
    if samples is None:
        _run("hard", y, draw, more=_indexaddress(index))
    elif samples:
        _run("hard", y[0], draw, samples=samples, more=_indexaddress(index))
    return y, index


def rule_backward(draw: Fields, grad: Tensor, index: Tensor, rule: KernelRule, given: bool) -> Tensor:
    """The gradient of a rule for the logits, of the shape of ``grad``; noise that it needs is made here."""
    index, out = index.contiguous(), _contiguous(grad)
    more = _rule(index.data_ptr(), 0, rule, given)
    if grad.dim() == draw[0].dim():
        return _run("rule_backward", out, draw, grad, more=more)
    if len(grad):
        _run("rule_backward", out[0], draw, grad.contiguous()[0], samples=len(grad), more=more)
    return out


# Bits: every operand is contiguous, rows have one column, ids and tau may be one for each bit. Calls are packed where
# they are made, for one more function between takes a part of a microsecond, and a small draw of bits takes ten.


def bits(draw: Fields, samples: int | None) -> Tensor:
    """Bits, 1 with probability sigmoid(theta), ``(samples, *batch)`` or ``batch``."""
    theta, _, seed, rows, mask, _ = draw
    mask_at = rows_at = 0
    if rows is not None or mask is not None or not theta.is_contiguous() or theta.is_neg():
        theta, mask, rows = _alike(theta, mask, rows)
        mask_at, rows_at = address(mask), address(rows)
    out = _empty_like(theta) if samples is None else theta.new_empty((samples, *theta.shape))
    if (n := theta.numel()) and samples != 0:
        at = out.data_ptr(), theta.data_ptr() or address(theta), 0, 0, mask_at, address(seed), rows_at, 0, 0
        number = 1 if samples is None else samples
        call = _pack(*at, 1.0, 0.0, n, 1, DTYPES[theta.dtype], 0, 0, number, _threads(), 0, 1, False)
        function("bits")(call, None)
    return out


def soft_bits(draw: Fields, stretch: float) -> Tensor:
    """Relaxed bits, stretched and clipped, of the shape of theta."""
    theta, tau, seed, rows, mask, _ = draw
    mask_at = rows_at = taus_at = 0
    if rows is not None or mask is not None or type(tau) is not float or not theta.is_contiguous() or theta.is_neg():
        tau, taus = number_or_rows(tau, compute_dtype(theta.dtype))
        theta, mask, rows, taus = _alike(theta, mask, rows, taus)
        mask_at, rows_at, taus_at = address(mask), address(rows), address(taus)
    out = _empty_like(theta)
    if n := theta.numel():
        at = out.data_ptr(), theta.data_ptr() or address(theta), 0, 0, mask_at, address(seed), rows_at, taus_at, 0
        function("soft_bits")(
            _pack(*at, tau, stretch, n, 1, DTYPES[theta.dtype], 0, 0, 1, _threads(), 0, 1, False), None
        )
    return out


def bits_backward(draw: Fields, grad: Tensor, sample: Tensor, rule: KernelRule, given: bool) -> Tensor:
    """The gradient of a rule for theta, of the shape of ``grad``."""
    (theta, tau, seed, rows, mask, _), (name, _, gap, count) = draw, rule
    mask_at = rows_at = taus_at = 0
    if rows is not None or mask is not None or type(tau) is not float or not theta.is_contiguous() or theta.is_neg():
        tau, taus = number_or_rows(tau, compute_dtype(theta.dtype))
        theta, mask, rows, taus = _alike(theta, mask, rows, taus)
        mask_at, rows_at, taus_at = address(mask), address(rows), address(taus)
    if not grad.is_contiguous() or grad.is_neg():
        grad = _stored(grad)
    sample, out = sample.contiguous(), _empty_like(grad)
    if total := out.numel():
        n = theta.numel()
        seed_at = 0 if seed is None else address(seed)
        grad_at = grad.data_ptr() or address(grad)
        at = out.data_ptr(), theta.data_ptr() or address(theta), grad_at, sample.data_ptr(), mask_at, seed_at, rows_at
        how = DTYPES[theta.dtype], 0, 0, total // n, _threads(), _RULES[name], count, given
        function("bits_backward")(_pack(*at, taus_at, 0, tau, gap, n, 1, *how), None)
    return out


def gumbel(seed: Tensor, rows: Tensor, cols: int, col_start: int, stream: Tensor, dtype: torch.dtype) -> Tensor:
    """Standard Gumbel noise of shape ``(..., cols)``."""
    if stream.numel() != 1:  # a stream for every row: vmap over streams, which is rare
        return reference.gumbel(seed, rows, cols, col_start, stream, dtype)
    batch = torch.broadcast_tensors(seed, rows)[0].shape[:-1]  # broadcast_shapes would import sympy: 0.3 s
    out = torch.empty((*batch, cols), dtype=dtype, device=rows.device)
    return _run("gumbel", out, (out, 1.0, seed, rows, None, col_start), stream=int(stream))


_INDICES = ("index", "best", "tempered", "topk")  # what they write has no columns
More = tuple[int, int, float, int, int, bool]  # addresses of indices and of bits; a rule's gap, number, count; given
_NO_MORE: More = (0, 0, 0.0, 0, 1, False)


def _run(
    name: str,
    out: Tensor,
    draw: Fields,
    grad: Tensor | None = None,
    samples: int = 1,
    stream: int = 0,
    more: More = _NO_MORE,
) -> Tensor:
    """Pack the inputs for the library and call the operation; returns ``out``. Noise has no logits: ``out`` stands in
    their place."""
    logits, tau, seed, rows, mask, col_start = draw
    shape = logits.shape
    cols = shape[-1]
    strides, mask_at, rows_at, taus_at = None, 0, 0, 0
    # A draw of contiguous logits with one seed and one tau needs no layout. ``layout`` knows what else needs none.
    if not (
        type(tau) is float
        and rows is None
        and mask is None
        and logits.is_contiguous()
        and (seed is None or not seed.dim())
        and (grad is None or grad.is_contiguous())
    ):
        if name in ("index", "best"):  # tau does not change the index
            tau, taus = 1.0, None
        elif name in _INDICES and isinstance(tau, Tensor):
            tau, taus = 1.0, tau
        else:
            tau, taus = number_or_rows(tau, compute_dtype(logits.dtype))
        given = None if logits is out else logits.resolve_neg()
        grad = None if grad is None else grad.resolve_neg()
        strides = layout(shape, (None if name in _INDICES else out, given, grad, mask, seed, rows, taus))
        mask_at, rows_at, taus_at = address(mask), address(rows), address(taus)
        logits = out if given is None else given
    index_at, sample_at, gap, rule, count, is_given = more
    call = _pack(
        out.data_ptr(),
        0 if logits is out else logits.data_ptr() or address(logits),
        0 if grad is None else grad.data_ptr() or address(grad),
        sample_at,
        mask_at,
        0 if seed is None else seed.data_ptr() or address(seed),
        rows_at,
        taus_at,
        index_at,
        tau,
        gap,
        logits.numel() // (cols or 1),
        cols,
        DTYPES[logits.dtype],
        col_start,
        stream,
        samples,
        _threads(),
        rule,
        count,
        is_given,
    )
    function(name)(call, strides)
    return out


def _contiguous(like: Tensor, samples: int | None = None) -> Tensor:
    """Memory for a contiguous result of the dtype and shape of ``like``, or of ``samples`` of them."""
    if samples is not None:
        return like.new_empty((samples, *like.shape))
    # Twice as quick as the other way, but it takes over strides.
    return _empty_like(like) if like.is_contiguous() else like.new_empty(like.shape)


def _stored(x: Tensor) -> Tensor:
    """``x`` in memory where its elements follow one another, with the signs that they have there."""
    return x.resolve_neg().contiguous()


def _alike(theta: Tensor, *operands: Tensor | None) -> list:
    """All of them stored, at the shape of ``theta``."""
    return [None if t is None else _stored(t.expand(theta.shape)) for t in (theta, *operands)]


def _indexaddress(index: Tensor) -> More:
    return index.data_ptr(), 0, 0.0, 0, 1, False


def _rule(index_at: int, sample_at: int, rule: KernelRule, given: bool) -> More:
    return index_at, sample_at, rule.gap, _RULES[rule.name], rule.draws, given
