"""The Bernoulli law: one bit."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.distributions import constraints
from torch.nn.functional import softplus

from softdraw.arguments import check_floating, prepare_mask
from softdraw.laws.law import Law
from softdraw.rules.pathwise import Pathwise


class Bernoulli(Law):
    r"""A bit, 1 with probability sigmoid(logits).

    .. math:: p(b) = \sigma(\theta)^b\, \sigma(-\theta)^{1 - b}

    Drawn as the categorical law of the logits (0, theta), so every pathwise rule serves it through its own formula:
    shifting both logits changes no rule, and the gradient for theta is the second component.

    Args:
        logits: log-odds of 1, ``batch``, any floating dtype; kept as given. -inf is a bit that is always 0.
        mask: bool, False = 1 is forbidden: the bit is always 0, with zero gradient. Broadcasts to the logits.
        rule: the gradient of ``rsample``; default ``ZGR()``.
        validate_args: True checks the values of samples given to ``log_prob``.

    Returns:
        A ``torch.distributions.Distribution`` with batch shape ``batch`` and event shape ``()``.

    Gradient:
        Of ``log_prob``, ``entropy``, ``mean`` and ``variance``: exact. Of ``rsample``: that of the rule.

    Raises:
        TypeError, ValueError: naming the argument, what it got and what is allowed.

    Example:
        >>> law = softdraw.Bernoulli(torch.tensor([0.0, 2.0, -1.0]))
        >>> law.sample(seed=0)
        tensor([0., 1., 1.])
        >>> law.log_prob(torch.tensor([1.0, 1.0, 0.0])), law.entropy()
        (tensor([-0.6931, -0.1269, -0.3133]), tensor([0.6931, 0.3653, 0.5822]))

    Source:
        ``torch.distributions.Bernoulli`` for the interface.
    """

    arg_constraints = {"logits": constraints.real}  # noqa: RUF012  # pyright: ignore (torch's own form)
    support = constraints.boolean  # pyright: ignore
    binary = True

    def __init__(
        self,
        logits: Tensor,
        mask: Tensor | None = None,
        *,
        rule: Pathwise | None = None,
        validate_args: bool | None = None,
    ) -> None:
        check_floating("logits", logits)
        mask = prepare_mask(mask, logits, max(logits.dim() - 1, 0))
        super().__init__(logits, mask, rule, validate_args)

    @property
    def categories(self) -> int:
        """2."""
        return 2

    def one_hot_logits(self) -> tuple[Tensor, Tensor | None]:
        """Logits (0, theta), ``(*batch, 2)``: category 0 is the bit 0."""
        logits = torch.stack((torch.zeros_like(self.logits), self.logits), -1)
        mask = self.mask
        return logits, None if mask is None else torch.stack((torch.ones_like(mask), mask), -1)

    def embed(self, value: Tensor) -> Tensor:
        """(1 - b, b)."""
        return torch.stack((1 - value, value), -1)

    def extract(self, one_hot: Tensor) -> Tensor:
        """The second component."""
        return one_hot[..., 1]

    @property
    def probs(self) -> Tensor:
        """The probability of 1, ``batch``."""
        return torch.sigmoid(self._log_odds()).to(self.logits.dtype)

    @property
    def mean(self) -> Tensor:
        """The probability of 1."""
        return self.probs

    @property
    def mode(self) -> Tensor:
        """1 where 1 is likelier than 0, else 0; without gradient."""
        x = self._log_odds().detach()
        return torch.where(x.isnan(), x, (x > 0).to(x.dtype)).to(self.logits.dtype)

    @property
    def variance(self) -> Tensor:
        """p (1 - p)."""
        x = self._log_odds()
        return (torch.sigmoid(x) * torch.sigmoid(-x)).to(self.logits.dtype)

    def log_prob(self, value: Tensor) -> Tensor:
        """log p(value), ``(..., *batch)``; -inf for a 1 that is forbidden."""
        value = self._check(value)
        off, on = self.log_probs().unbind(-1)
        log_p = torch.where(value == 0, 0, value * on) + torch.where(value == 1, 0, (1 - value) * off)
        return log_p.to(self.logits.dtype)

    def entropy(self) -> Tensor:
        """Entropy in nats, ``batch``; 0 where 1 is forbidden."""
        x = self._log_odds()
        sure = x.isinf()
        safe = x.masked_fill(sure, 0)
        h = softplus(safe) - torch.sigmoid(safe) * safe
        return h.masked_fill(sure, 0).to(self.logits.dtype)

    def enumerate_support(self, expand: bool = True) -> Tensor:
        """0 and 1, ``(2, *batch)``, or ``(2, 1, ...)`` with ``expand=False``."""
        bits = torch.arange(2, dtype=self.logits.dtype, device=self.logits.device)
        bits = bits.view(2, *[1] * len(self.batch_shape))
        return bits.expand(2, *self.batch_shape) if expand else bits

    def uniform(self) -> Bernoulli:
        """A fair bit, or a sure 0 where 1 is forbidden: the other side of a KL to the uniform prior."""
        return Bernoulli(self.logits.detach().masked_fill(self.logits != -math.inf, 0), self.mask)

    def _log_odds(self) -> Tensor:
        scores = self.scores()
        return scores[..., 1] - scores[..., 0]

    def log_probs(self) -> Tensor:
        """log p(0) and log p(1), float32 or float64, ``(*batch, 2)``; finite gradients where one of them is sure."""
        x = self._log_odds()
        never = x == -math.inf
        safe = x.masked_fill(never, 0)
        off = -softplus(safe).masked_fill(never, 0)
        return torch.stack((off, (-softplus(-safe)).masked_fill(never, -math.inf)), -1)
