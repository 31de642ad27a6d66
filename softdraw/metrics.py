"""How a code is used: perplexities, active codes, largest probability; plain numbers, from sums that accumulate.

For the usage p of K codes (mean over everything but the codes), perplexity is exp(H(p)): K when all are used alike, 1
when one is used alone. Soft takes the mean of the given probabilities, hard counts each row's argmax. Draws of a
posterior that ignores its input are evenly used too: to see whether codes carry anything, give the posterior's own
probabilities or argmax, and look at its divergence from the prior.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor

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
        TypeError, ValueError: naming the argument, what it got and what is allowed.

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
    source = ([] if group_dim is None else [group_dim]) + ([dim] if floating else [])
    x = codes.movedim(source, list(range(-len(source), 0)))
    usage = CodeUsage(
        num_codes if num_codes is not None else x.shape[-1], 1 if group_dim is None else codes.shape[group_dim]
    )
    usage.update(x)
    return usage.compute()


def _check_codes(codes: object) -> None:
    if not isinstance(codes, Tensor) or codes.dtype == torch.bool or codes.is_complex():
        got = f"a tensor of {codes.dtype}" if isinstance(codes, Tensor) else type(codes).__name__
        raise TypeError(f"codes must be probabilities, one-hots as floats, or int64 indices, got {got}")


class CodeUsage:
    """:func:`code_usage` over many batches and ranks: ``update`` per batch, ``compute`` at the end, ``reset``.

    Sums stay on the device of the first batch, and nothing waits for that device before ``compute``. Where
    torch.distributed is initialised, ``compute`` adds up the sums of all ranks (every rank must call it).

    Args:
        num_codes: K.
        groups: the number of latents with codebooks of their own; batches then end in ``(groups, K)``, or
            ``(groups,)`` for indices.

    Example:
        >>> usage = softdraw.metrics.CodeUsage(num_codes=4)
        >>> for batch in ([0, 0, 1], [1, 2, -1]): usage.update(torch.tensor(batch))
        >>> usage.compute()["active_codes"], usage.hard
        (3, tensor([[2, 2, 1, 0]]))
    """

    soft: Tensor  # (groups, K): summed probabilities
    hard: Tensor  # (groups, K): rows whose argmax the code is

    def __init__(self, num_codes: int, groups: int = 1) -> None:
        if num_codes < 1 or groups < 1:
            raise ValueError(f"num_codes and groups must be at least 1, got {num_codes} and {groups}")
        self.num_codes, self.groups = num_codes, groups
        self.reset()

    def reset(self) -> None:
        """Forget every batch."""
        self.soft = torch.zeros(self.groups, self.num_codes, dtype=torch.float64)
        self.hard = torch.zeros(self.groups, self.num_codes, dtype=torch.int64)

    @torch.no_grad()
    def update(self, codes: Tensor) -> None:
        """Add a batch: ``(..., K)`` probabilities or indices; if grouped ``(..., groups, K)`` or ``(..., groups)``."""
        _check_codes(codes)
        if codes.is_floating_point():
            rows = self._shaped(codes, (self.groups, self.num_codes))
            if rows.device.type == "cpu" and bool((rows < 0).any()):
                raise ValueError(
                    f"codes must be one-hots or probabilities, got values down to {float(rows.min()):.4g}: "
                    "write logits.softmax(-1)"
                )
            index = torch.where(rows.sum(-1) > 0, rows.argmax(-1), -1)
            soft = torch.where(index.unsqueeze(-1) < 0, 0, rows).sum(0, dtype=torch.float64)
        else:
            index = self._shaped(codes, (self.groups,)).long()
            soft = None
        hard = self._counts(index)
        self.hard = self.hard.to(hard.device) + hard
        self.soft = self.soft.to(hard.device) + (hard if soft is None else soft)

    def compute(self) -> dict[str, float]:
        """The numbers of :func:`code_usage` over all batches since the last reset, on all ranks."""
        soft, hard = self.soft.clone(), self.hard.clone()
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(soft)
            dist.all_reduce(hard)
        return {
            "perplexity_soft": _perplexity(soft),
            "perplexity_hard": _perplexity(hard.double()),
            "active_codes": int((hard > 0).sum()),
            "largest_probability": float((hard / hard.sum(-1, keepdim=True)).max()),
        }

    def _shaped(self, codes: Tensor, ending: tuple[int, ...]) -> Tensor:
        wanted = ending if self.groups > 1 else ending[1:]
        if wanted and tuple(codes.shape[-len(wanted) :]) != wanted:
            raise ValueError(f"codes must end in the shape {wanted}, got {tuple(codes.shape)}")
        return codes.reshape(-1, *ending)

    def _counts(self, index: Tensor) -> Tensor:
        """How often each code occurs in ``(n, groups)`` indices; -1 counts for none."""
        if (
            index.device.type == "cpu"
            and index.numel()
            and not -1 <= int(index.min()) <= int(index.max()) < self.num_codes
        ):
            raise ValueError(
                f"codes must be from 0 to {self.num_codes - 1}, or -1 for none, got values from {int(index.min())} to "
                f"{int(index.max())}"
            )
        slots = torch.zeros(self.groups, self.num_codes + 1, dtype=torch.int64, device=index.device)
        slots.scatter_add_(1, index.T % (self.num_codes + 1), torch.ones_like(index.T))  # -1 becomes the slot K
        return slots[:, :-1]


def _perplexity(sums: Tensor) -> float:
    """The mean over groups of exp(entropy) of the normalised sums."""
    p = sums / sums.sum(-1, keepdim=True)
    return float(torch.exp(-torch.special.xlogy(p, p).sum(-1)).mean())
