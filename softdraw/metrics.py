"""How a code is used: perplexities, active codes, largest probability; plain numbers, from sums that accumulate.

For the usage p of K codes (mean over everything but the codes), perplexity is exp(H(p)): K when all are used alike, 1
when one is used alone. Soft takes the mean of the given probabilities, hard counts each row's argmax. Draws of a
posterior that ignores its input are evenly used too: to see whether codes carry anything, give the posterior's own
probabilities or argmax, and look at its divergence from the prior.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from softdraw.arguments import compute_dtype
from softdraw.checks import count, given, integer

__all__ = ["CodeUsage", "code_usage"]


def code_usage(
    codes: Tensor, *, num_codes: int | None = None, dim: int = -1, group_dim: int | None = None
) -> dict[str, float]:
    r"""How evenly a batch uses its codes.

    .. math:: \text{perplexity} = \exp\Big(-\sum_k p_k \log p_k\Big), \qquad p_k = \text{mean of code } k

    Args:
        codes: one-hots or probabilities ``(..., K)`` (K at ``dim``), floating point; or int64 indices of any shape,
            with ``num_codes``. Rows that are all zero, or have index -1, hold no code and are left out.
        num_codes: K, needed for indices.
        dim: the dimension of the categories (probabilities only).
        group_dim: a dimension of independent latents, each with a codebook of its own. Perplexities are then means over
            the groups, active codes are summed over them, and the largest probability is the largest of any.

    Returns:
        ``perplexity_soft``, ``perplexity_hard``, ``active_codes`` (how many codes are some row's argmax),
        ``largest_probability`` (of the hard usage). NaN perplexity where there was no row at all.

    Gradient:
        None: the values are Python floats.

    Raises:
        TypeError, ValueError, IndexError: naming the argument, what it got and what is allowed. On the CPU a row that
        is neither a probability nor all zero (NaN, a negative value, another sum than 1) and an index outside the
        codebook are errors. On an accelerator nothing waits for a check: there every number of the result is NaN.

    Example:
        >>> y = torch.tensor([[0.5, 0.5, 0.0, 0.0], [0.0, 0.2, 0.8, 0.0]])
        >>> {name: round(value, 4) for name, value in softdraw.metrics.code_usage(y).items()}
        {'perplexity_soft': 2.9462, 'perplexity_hard': 2.0, 'active_codes': 2, 'largest_probability': 0.5}
        >>> softdraw.metrics.code_usage(torch.tensor([0, 1, 2, 3]), num_codes=4)["perplexity_hard"]
        4.0
    """
    _check_codes(codes)
    floating = codes.is_floating_point()
    if not floating and num_codes is None:
        raise ValueError("num_codes is needed when codes are indices: it is K, the size of the codebook")
    source = [_dimension("dim", dim, codes)] if floating else []
    if group_dim is not None:
        source.insert(0, _dimension("group_dim", group_dim, codes))
    if len(set(source)) < len(source):
        raise ValueError(
            f"group_dim must be another dimension than dim, got {group_dim} and {dim} for codes of shape "
            f"{tuple(codes.shape)}: leave it out if there is one codebook"
        )
    groups = 1 if group_dim is None else codes.shape[group_dim]
    if (floating and num_codes is None and codes.shape[dim] == 0) or groups == 0:
        raise ValueError(f"codes must have at least one category and one group, got shape {tuple(codes.shape)}")
    x = codes.movedim(source, list(range(-len(source), 0)))
    usage = CodeUsage(x.shape[-1] if num_codes is None else num_codes, groups)
    usage.update(x)
    return usage.compute()


def _check_codes(codes: object) -> None:
    if not isinstance(codes, Tensor) or codes.dtype == torch.bool or codes.is_complex():
        raise TypeError(f"codes must be probabilities, one-hots as floats, or int64 indices, got {given(codes)}")


def _dimension(name: str, dim: Any, codes: Tensor) -> int:
    """``dim`` counted from the front."""
    n = codes.dim()
    if not -n <= integer(name, dim, "a dimension of codes") < n:
        raise IndexError(f"{name} must be from {-n} to {n - 1} for codes of shape {tuple(codes.shape)}, got {dim}")
    return dim % n


class CodeUsage:
    """:func:`code_usage` over many batches and ranks: ``update`` per batch, ``compute`` at the end, ``reset``.

    Sums stay on the device of the first batch, and nothing waits for that device before ``compute``. Where
    torch.distributed is initialised, ``compute`` adds up the sums of all ranks (every rank must call it). A row that
    holds no probabilities is an error on the CPU; on an accelerator it makes every number NaN.

    Args:
        num_codes: K.
        groups: the number of latents with codebooks of their own; batches then end in ``(groups, K)``, or
            ``(groups,)`` for indices.

    Raises:
        TypeError, ValueError: as :func:`code_usage`.

    Example:
        >>> usage = softdraw.metrics.CodeUsage(num_codes=4)
        >>> for batch in ([0, 0, 1], [1, 2, -1]): usage.update(torch.tensor(batch))
        >>> usage.compute()["active_codes"], usage.hard
        (3, tensor([[2, 2, 1, 0]]))
    """

    soft: Tensor  # (groups, K): summed probabilities; NaN for a group that was given something else
    hard: Tensor  # (groups, K): rows whose argmax the code is

    def __init__(self, num_codes: int, groups: int = 1) -> None:
        self.num_codes = count("num_codes", num_codes, 1, "it is K, the size of the codebook")
        self.groups = count("groups", groups, 1, "it is the number of latents with codebooks of their own")
        self.reset()

    def reset(self) -> None:
        """Forget every batch."""
        self.soft = torch.zeros(self.groups, self.num_codes, dtype=torch.float64, device="cpu")
        self.hard = torch.zeros(self.groups, self.num_codes, dtype=torch.int64, device="cpu")

    @torch.no_grad()
    def update(self, codes: Tensor) -> None:
        """Add a batch: ``(..., K)`` probabilities or indices; if grouped ``(..., groups, K)`` or ``(..., groups)``."""
        _check_codes(codes)
        if codes.is_floating_point():
            index, soft, illegal = _probabilities(self._shaped(codes, (self.groups, self.num_codes)))
        else:
            index, illegal = _indices(self._shaped(codes, (self.groups,)), self.num_codes)
            soft = None
        hard = self._counts(index)
        spoilt = torch.where(illegal.any(0), math.nan, 0.0).unsqueeze(
            -1
        )  # no device is read here: compute() finds the NaN
        self.hard = self.hard.to(hard.device) + hard
        self.soft = self.soft.to(hard.device) + (hard if soft is None else soft) + spoilt

    def compute(self) -> dict[str, float]:
        """The numbers of :func:`code_usage` over all batches since the last reset, on all ranks."""
        soft, hard = self.soft.clone(), self.hard.clone()
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(soft)
            dist.all_reduce(hard)
        numbers = {
            "perplexity_soft": _perplexity(soft),
            "perplexity_hard": _perplexity(hard.double()),
            "active_codes": int((hard > 0).sum()),
            "largest_probability": float(_of_used(hard).max()) if bool(hard.any()) else math.nan,
        }
        return dict.fromkeys(numbers, math.nan) if bool(soft.isnan().any()) else numbers

    def _shaped(self, codes: Tensor, ending: tuple[int, ...]) -> Tensor:
        wanted = ending if self.groups > 1 else ending[1:]
        if wanted and tuple(codes.shape[-len(wanted) :]) != wanted:
            raise ValueError(f"codes must end in the shape {wanted}, got {tuple(codes.shape)}")
        return codes.reshape(-1, *ending)

    def _counts(self, index: Tensor) -> Tensor:
        """How often each code occurs in ``(n, groups)`` indices; -1 counts for none."""
        slots = torch.zeros(self.groups, self.num_codes + 1, dtype=torch.int64, device=index.device)
        slots.scatter_add_(1, index.T % (self.num_codes + 1), torch.ones_like(index.T))  # -1 becomes the slot K
        return slots[:, :-1]


def _indices(index: Tensor, num_codes: int) -> tuple[Tensor, Tensor]:
    """Indices, -1 where they are illegal, and which are outside the codebook. That is an error where values can be
    read."""
    index = index.long()  # before it is compared: num_codes may be more than a small integer holds
    illegal = (index < -1) | (index >= num_codes)
    if _readable(illegal) and bool(illegal.any()):
        low, high = int(index.min()), int(index.max())
        raise ValueError(f"codes must be from 0 to {num_codes - 1}, or -1 for none, got values from {low} to {high}")
    return torch.where(illegal, -1, index), illegal


def _probabilities(codes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The argmax of each row, the sum of the rows, and which rows are no probabilities. That is an error where values
    can be read. A row that is all zero holds no code."""
    rows = codes.to(compute_dtype(codes.dtype))
    total = rows.sum(-1)
    illegal = ~((rows >= 0).all(-1) & (((total - 1).abs() <= _tolerance(codes)) | (total == 0)))
    if _readable(illegal) and bool(illegal.any()):
        raise ValueError(f"codes must be one-hots or probabilities, got {_complaint(rows[illegal][0])}")
    index = torch.where(illegal | (total == 0), -1, rows.argmax(-1))
    return index, torch.where(index.unsqueeze(-1) < 0, 0, rows).sum(0, dtype=torch.float64), illegal


def _tolerance(codes: Tensor) -> float:
    """The sum of a row of rounded probabilities may differ from 1 by this much: 0.001, or the rounding error of K
    numbers in the dtype if that is more. Each is off by at most half of its eps, or by half of the smallest number."""
    limits = torch.finfo(codes.dtype)
    return max(1e-3, limits.eps) + codes.shape[-1] * limits.tiny * limits.eps / 2


def _complaint(row: Tensor) -> str:
    if bool(row.isnan().any()):
        return "a row with NaN: look for the first NaN in the model"
    if bool((row < 0).any()):
        return f"values down to {float(row.min()):.4g}: write logits.softmax(-1)"
    return f"a row that sums to {float(row.sum()):.4g}: write logits.softmax(-1), or p / p.sum(-1, keepdim=True)"


def _readable(x: Tensor) -> bool:
    """Whether a value can be read without waiting for a device."""
    return x.device.type == "cpu"


def _perplexity(sums: Tensor) -> float:
    """The mean over groups that hold a code of exp(entropy) of the normalised sums; NaN where none does."""
    p = _of_used(sums)
    return float(torch.exp(-torch.special.xlogy(p, p).sum(-1)).mean())


def _of_used(sums: Tensor) -> Tensor:
    """The shares of the codes, of the groups that hold any."""
    used = sums[sums.sum(-1) != 0]
    return used / used.sum(-1, keepdim=True)
