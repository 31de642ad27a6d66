"""The concrete law: the exact law of a Gumbel-softmax sample on the simplex."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints

from softdraw.arguments import (
    check_floating,
    check_logits,
    compute_dtype,
    prepare_mask,
    prepare_rows,
    row_ids,
    tau_tensor,
)
from softdraw.numerics import logsumexp, masked
from softdraw.operators.softmax import softmax
from softdraw.rules.conditional_noise import Noise
from softdraw.seeds import prepare_seed


class RelaxedOneHotCategorical(Distribution):
    r"""A relaxed one-hot vector, the law of :math:`y = \mathrm{softmax}((\theta + G) / \tau)`.

    .. math:: \log p(y) = \log \Gamma(K) + (K - 1) \log \tau + \sum_j (z_j - \log y_j) - K \log \sum_j e^{z_j},
              \qquad z = \theta - \tau \log y

    At low temperatures y underflows to exact zeros; ``rsample_log`` and ``log_prob_log`` are the same law over
    log y, exact at any temperature.

    Args:
        tau: > 0, a number or a tensor that broadcasts with the logits' *batch* shape (no dimension for categories).
        logits: unnormalised log-probabilities, ``(*batch, K)``, any floating dtype; kept as given.
        mask: bool, True = allowed, broadcasts to the logits; the law then lives on the face of the allowed categories.
        validate_args: True checks the values of samples given to ``log_prob``.

    Returns:
        A ``torch.distributions.Distribution``, its batch shape that of tau and the logits' batch together, its event
        shape ``(K,)``.

    Gradient:
        ``rsample`` and ``rsample_log`` are reparametrised, ``log_prob`` is exact; logits and tau both get theirs.

    Raises:
        TypeError, ValueError: naming the argument, what it got and what is allowed.

    Example:
        >>> law = softdraw.RelaxedOneHotCategorical(0.5, torch.tensor([1.0, 2.0, 3.0]))
        >>> y = law.rsample(seed=0); y
        tensor([0.1062, 0.0451, 0.8488])
        >>> law.log_prob(y)
        tensor(1.0456)
        >>> cold = softdraw.RelaxedOneHotCategorical(0.01, torch.tensor([1.0, 2.0, 3.0]))
        >>> log_y = cold.rsample_log(seed=0); log_y, cold.log_prob_log(log_y)
        (tensor([-103.9440, -146.7868,    0.0000]), tensor(-12.2849))

    Source:
        Maddison, Mnih and Teh (2017), "The concrete distribution"; the log space is its appendix's ExpConcrete.
    """

    arg_constraints = {"tau": constraints.positive, "logits": constraints.real_vector}  # noqa: RUF012  # pyright: ignore (torch's own form)
    support = constraints.simplex  # pyright: ignore
    has_rsample = True

    def __init__(
        self,
        tau: float | Tensor,
        logits: Tensor,
        mask: Tensor | None = None,
        *,
        validate_args: bool | None = None,
    ) -> None:
        dim = check_logits(logits, -1)
        mask = prepare_mask(mask, logits, dim)
        batch = logits.shape[:-1]
        if isinstance(tau, Tensor):
            batch = _joint_batch(tau, logits)
        shape = (*batch, logits.shape[-1])
        self.logits, self.mask = logits.expand(shape), None if mask is None else mask.expand(shape)
        per_row = tau.expand(batch).unsqueeze(-1) if isinstance(tau, Tensor) and tau.dim() else tau
        self._tau = tau_tensor(per_row, self.logits, len(batch))
        super().__init__(batch, logits.shape[-1:], bool(validate_args))

    @property
    def tau(self) -> Tensor:
        """The temperature, of the batch shape (or 0-d)."""
        return self._tau.squeeze(-1) if self._tau.dim() else self._tau

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> RelaxedOneHotCategorical:
        """The law with its batch expanded; the copies' draws are independent."""
        shape = (*batch_shape, *self.event_shape)
        mask = None if self.mask is None else self.mask.expand(shape)
        return RelaxedOneHotCategorical(self.tau, self.logits.expand(shape), mask, validate_args=self._validate_args)

    def sample(self, sample_shape: Sequence[int] = (), **source: Any) -> Tensor:
        """Relaxed samples without gradient; takes ``seed``, ``generator`` and ``rows`` as ``rsample`` does."""
        with torch.no_grad():
            return self.rsample(sample_shape, **source)

    def rsample(self, sample_shape: Sequence[int] = (), *, seed=None, generator=None, rows=0) -> Tensor:
        """Relaxed samples ``(*sample_shape, *batch, K)``, reparametrised; the arguments of ``softdraw.draw``."""
        s, tau = self._noisy(sample_shape, seed, generator, rows)
        return softmax(s, tau).reshape(*sample_shape, *self.logits.shape).to(self.logits.dtype)

    def rsample_log(self, sample_shape: Sequence[int] = (), *, seed=None, generator=None, rows=0) -> Tensor:
        """log y of the same samples, in float32 or float64: no value underflows, a forbidden category is at -inf."""
        s, tau = self._noisy(sample_shape, seed, generator, rows)
        forbidden = s == -math.inf
        z = torch.where(forbidden, s, (s - s.detach().amax(-1, keepdim=True)) / tau.to(s.dtype))
        return (z - logsumexp(z)).reshape(*sample_shape, *self.logits.shape)

    def log_prob(self, value: Tensor) -> Tensor:
        """The log-density of ``value`` on the simplex; a zero counts as the smallest normal number, so it is finite."""
        if self._validate_args:
            self._validate_sample(value)
        x = value.to(compute_dtype(self.logits.dtype))
        log_y = x.clamp_min(torch.finfo(x.dtype).tiny).log()
        allowed = self._scores() != -math.inf
        jacobian = torch.where(allowed, log_y, 0).sum(-1)
        return (self._log_density(log_y) - jacobian).to(self.logits.dtype)

    def log_prob_log(self, log_value: Tensor) -> Tensor:
        """The log-density of ``log_value`` = log y, with respect to log y (that of y less its Jacobian, sum log y)."""
        return self._log_density(log_value.to(compute_dtype(self.logits.dtype))).to(self.logits.dtype)

    def _log_density(self, log_y: Tensor) -> Tensor:
        x, tau = self._scores(), self._tau.to(log_y.dtype)
        allowed = x != -math.inf
        z = torch.where(allowed, x - tau * torch.where(allowed, log_y, 0), -math.inf)
        k = allowed.sum(-1).to(log_y.dtype)
        constant = torch.lgamma(k.clamp_min(1)) + (k - 1).clamp_min(0) * tau.log().squeeze(-1)
        return constant + torch.where(allowed, z, 0).sum(-1) - k * logsumexp(z).squeeze(-1)

    def _scores(self) -> Tensor:
        return masked(self.logits.to(compute_dtype(self.logits.dtype)), self.mask)

    def _noisy(self, sample_shape: Sequence[int], seed: Any, generator: Any, rows: Any) -> tuple[Tensor, Tensor]:
        """Scores theta + G, ``(samples, *batch, K)``, and the temperature that broadcasts to them."""
        x = self._scores().expand(math.prod(sample_shape), *self.logits.shape)
        ids = prepare_rows(rows, self.batch_shape, x.device)
        ids = row_ids(self.batch_shape, x.device) if ids is None else ids
        key = prepare_seed(seed, generator, x.device)
        return x + Noise(key, ids.unsqueeze(0), drawn=True).gumbel(x, 0)[0], self._tau


def _joint_batch(tau: Tensor, logits: Tensor) -> torch.Size:
    """The batch shape of tau and logits together; a trailing 1 in tau is taken for a misplaced category dimension."""
    check_floating("tau", tau)
    batch = logits.shape[:-1]
    if tau.dim() > len(batch) and tau.shape[-1] == 1 and tau.dim() > 1:
        raise ValueError(
            f"tau of shape {tuple(tau.shape)} has a dimension more than the batch {tuple(batch)} of the logits: it "
            "broadcasts as a batch shape, without a dimension for the categories; write tau.squeeze(-1)"
        )
    try:
        return torch.broadcast_shapes(tau.shape, batch)
    except RuntimeError:
        raise ValueError(
            f"tau of shape {tuple(tau.shape)} does not broadcast with the batch {tuple(batch)} of the logits"
        ) from None
