"""The noise itself: blocks of it, single columns, and noise given an index."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from softdraw import noise, numerics
from softdraw.arguments import check_col_start, compute_dtype, prepare_rows, prepare_shape, row_ids
from softdraw.checks import (
    INTEGERS,
    check_device,
    check_dtype,
    check_floating,
    check_tensor,
    integer,
    prepare_device,
)
from softdraw.operators import draws, keys
from softdraw.overrides import overridable
from softdraw.private_torch import is_plain
from softdraw.seeds import seed_tensor
from softdraw.tensors import is_dtensor


@overridable
def gumbel_noise(
    shape: Sequence[int],
    *,
    seed: int | Tensor,
    rows: int | Tensor = 0,
    col_start: int = 0,
    stream: int = 0,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str | None = None,
    logits: Tensor | None = None,
    index: Tensor | None = None,
) -> Tensor:
    r"""Standard Gumbel noise, a pure function of (seed, row, column, stream): what every draw of this library adds.

    .. math:: G = -\log(-\log(1 - u)), \qquad u = u(\text{seed}, \text{row}, \text{column}, \text{stream}) \in (0, 1)

    ``rows`` and ``col_start`` give any block of a larger tensor of noise by itself, bit for bit. With ``logits`` and
    ``index`` it is noise of the law given that this index was drawn, :math:`G \sim p(G \mid \arg\max_j (\theta_j + G_j)
    = x)`: with :math:`p = \mathrm{softmax}(\theta)` and independent noise g,

    .. math:: G_x = g_x - \log p_x, \qquad G_j = -\log(e^{-g_j} + p_j e^{-g_x}) \quad (j \ne x)

    Args:
        shape: ``(*batch, columns)``; a row is one index into ``batch``, flattened.
        seed: 64 bits, an int or a 0-d int64 tensor; or a seed for every sample, as for :func:`gumbel_softmax`.
        rows: as for :func:`gumbel_softmax`: the id of the first row, or ids of rows or of samples.
        col_start: the index of the first column; columns are below 2^32. With logits it is 0.
        stream: an independent draw under one seed, below 2^31 - 1; :func:`gumbel_max` gives stream i to sample i.
        dtype: float64 is computed in float64, everything else in float32 and cast.
        device: default: that of a tensor seed or of the logits, else the CPU.
        logits: of ``shape``, or broadcasts to it; -inf where forbidden. Goes with ``index``.
        index: the category that was drawn, integers of shape ``batch``, or broadcasts to it; -1 where nothing was
            observed: the row's noise is then unconditional.

    Returns:
        Tensor of shape ``shape``, values between -2.82 and 45.1 (given an index: above that where the index has little
        mass). The survival function is right down to 2^-60.

    Gradient:
        Noise depends on no parameter. Given an index it depends on the logits, and has the gradient of the formula.

    Raises:
        TypeError, ValueError: naming the argument, what it got and what is allowed.

    Example:
        >>> softdraw.gumbel_noise((2, 3), seed=0)
        tensor([[ 0.6748, -0.7536, -0.2857],
                [ 0.6162, -0.9003,  0.5092]])
        >>> softdraw.gumbel_noise((1, 2), seed=0, rows=1, col_start=1)  # the same block
        tensor([[-0.9003,  0.5092]])
        >>> logits, index = torch.tensor([1.0, 2.0, 3.0]), torch.tensor(0)
        >>> (logits + softdraw.gumbel_noise((3,), seed=0, logits=logits, index=index)).argmax()
        tensor(0)

    Source:
        Salmon et al. (2011), "Parallel random numbers: as easy as 1, 2, 3" (Philox4x32-10); Maddison, Tarlow and Minka
        (2014), "A* sampling", for noise given an outcome.
    """
    sizes = prepare_shape("shape", shape)
    if not sizes:
        raise ValueError("shape must have at least one dimension, that of the columns, got ()")
    *batch, cols = sizes
    check_dtype("dtype", dtype)
    col_start = check_col_start(col_start, cols)
    place = seed.device if isinstance(seed, Tensor) else logits.device if isinstance(logits, Tensor) else "cpu"
    device = prepare_device(device, place)
    which = _stream(stream, device)
    key, ids = _keyed(seed, rows, torch.Size(batch), device)
    if logits is None and index is None:
        return draws.gumbel_noise(key, ids, which, cols, col_start, compute_dtype(dtype)).to(dtype).view(sizes)
    theta, at = _observed(sizes, logits, index, device, col_start)
    g = draws.gumbel_noise(keys.conditional(key), ids, which, cols, 0, compute_dtype(dtype)).view(sizes)
    return _given_index(g, theta.to(g.dtype), at).to(dtype)


@overridable
def noise_at(
    index: Tensor,
    *,
    seed: int | Tensor,
    rows: int | Tensor = 0,
    stream: int = 0,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    r"""The Gumbel noise of single columns, without that of the others: :func:`gumbel_noise`, looked up at an index.

    .. math:: G_{x} = -\log(-\log(1 - u_x))

    Args:
        index: one column for every row, integers of the batch's shape, from 0 to 2^32 - 1; or -1, no draw.
        seed, rows, stream, dtype: as for :func:`gumbel_noise`. For several columns of one row give each the row's id:
            ``rows=ids.unsqueeze(-1).expand_as(index)``.

    Returns:
        Tensor of the shape of ``index``, on its device; NaN where it is -1.

    Gradient:
        None: noise depends on no parameter.

    Raises:
        TypeError, ValueError: naming the argument, what it got and what is allowed.

    Example:
        >>> softdraw.gumbel_noise((2, 3), seed=0)
        tensor([[ 0.6748, -0.7536, -0.2857],
                [ 0.6162, -0.9003,  0.5092]])
        >>> softdraw.noise_at(torch.tensor([2, 1]), seed=0)
        tensor([-0.2857, -0.9003])

    Source:
        Salmon et al. (2011), "Parallel random numbers: as easy as 1, 2, 3" (Philox4x32-10).
    """
    return _look_up(index, seed, rows, stream, dtype, uniform=False)


@overridable
def uniform_at(
    index: Tensor,
    *,
    seed: int | Tensor,
    rows: int | Tensor = 0,
    stream: int = 0,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    r"""The uniform behind the noise of single columns, small where the column was likely to win.

    .. math:: u_x \in (0, 1), \qquad G_x = -\log(-\log(1 - u_x))

    Over n indices that were not drawn with this noise, :math:`-\sum \log u_x` has the law Gamma(n, 1); of indices that
    were it is larger. This is what detects a text that was sampled with a known seed. Philox is not a cryptographic
    generator: whoever has a few values can find the seed, so a watermark with it is no secret.

    Args:
        index, seed, rows, stream, dtype: as for :func:`noise_at`.

    Returns:
        Tensor of the shape of ``index``, on its device; NaN where it is -1.

    Gradient:
        None: noise depends on no parameter.

    Raises:
        TypeError, ValueError: naming the argument, what it got and what is allowed.

    Example:
        >>> logits = torch.zeros(1000, 50)
        >>> text = softdraw.gumbel_max(logits, seed=0)
        >>> [round((-softdraw.uniform_at(text, seed=seed).log()).sum().item()) for seed in (0, 1)]
        [4572, 1019]

    Source:
        Aaronson (2022), on watermarking the output of language models; with 1 - u in place of his uniforms.
    """
    return _look_up(index, seed, rows, stream, dtype, uniform=True)


def _look_up(index: Tensor, seed: Any, rows: Any, stream: int, dtype: torch.dtype, uniform: bool) -> Tensor:
    if is_dtensor(index):
        raise TypeError(
            "index must be a plain tensor, got a DTensor: write index.to_local(), with the ids of its rows as rows="
        )
    index = _indices("index", index, 2**32)
    check_dtype("dtype", dtype)
    which = _stream(stream, index.device)
    key, ids = _keyed(seed, rows, index.shape, index.device)
    found = keys.noise_at(key, ids, index.unsqueeze(-1), which, compute_dtype(dtype), uniform)
    return found.squeeze(-1).to(dtype)


def _keyed(seed: Any, rows: Any, batch: torch.Size, device: torch.device) -> tuple[Tensor, Tensor]:
    key = seed_tensor(seed, device, batch)
    ids = prepare_rows(rows, batch, device, seed)
    return key, row_ids(batch, device) if ids is None else ids


def _stream(stream: int, device: torch.device) -> Tensor:
    stream = integer("stream", stream, "the index of an independent draw")
    if not 0 <= stream < noise.STREAMS:
        raise ValueError(f"stream must be at least 0 and below 2**31 - 1, got {stream}")
    return torch.full((), stream, dtype=torch.int64, device=device)


def _indices(name: str, index: Tensor, end: int) -> Tensor:
    """Indices as int64, after a check that they are below ``end`` where their values can be read."""
    check_tensor(name, index, "tensor of integers")
    if index.dtype not in INTEGERS:
        raise TypeError(f"{name} must be a tensor of integers, got a tensor of {index.dtype}: write {name}.long()")
    if is_plain(index) and index.is_cpu and bool(((index < -1) | (index >= end)).any()):
        raise ValueError(f"{name} must be from 0 to {end - 1}, or -1 for none, got {index.min()} to {index.max()}")
    return index.long()


def _observed(
    sizes: tuple[int, ...], logits: Any, index: Any, device: torch.device, col_start: int
) -> tuple[Tensor, Tensor]:
    """Logits and index at the shape of the noise."""
    if logits is None or index is None:
        missing, there = ("logits", "index") if logits is None else ("index", "logits")
        raise ValueError(f"{missing} must be given with {there}, got None: noise given an index needs both")
    check_floating("logits", logits)
    check_device("logits", logits, device, "seed")
    if not sizes[-1]:
        raise ValueError(f"shape must have at least one column where an index was drawn, got {sizes}")
    at = _indices("index", index, sizes[-1])
    check_device("index", at, device, "logits")
    if col_start:
        raise ValueError(f"col_start must be 0 with logits, got {col_start}: noise given an index needs whole rows")
    for name, x, wanted in (("logits", logits, sizes), ("index", at, sizes[:-1])):
        tail = wanted[len(wanted) - x.dim() :]
        if x.dim() > len(wanted) or any(n not in (1, m) for n, m in zip(x.shape, tail, strict=True)):
            raise ValueError(f"{name} of shape {tuple(x.shape)} does not broadcast to {tuple(wanted)}")
    return logits.expand(sizes), at.expand(sizes[:-1])


def _given_index(g: Tensor, theta: Tensor, index: Tensor) -> Tensor:
    """Noise given that ``index`` is the argmax of theta plus it, from independent noise ``g``."""
    log_p = numerics.log_probs(theta)
    drawn = torch.arange(g.shape[-1], device=g.device) == index.unsqueeze(-1)
    own = torch.where(drawn, g, 0).sum(-1, keepdim=True)
    noise = torch.where(drawn, g - log_p, -torch.logaddexp(-g, log_p - own))
    return torch.where(index.unsqueeze(-1) < 0, g, noise)
