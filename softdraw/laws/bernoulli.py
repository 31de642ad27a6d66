"""The Bernoulli law: one bit."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.distributions import constraints
from torch.nn.functional import softplus

from softdraw.arguments import compute_dtype, prepare_mask
from softdraw.checks import check_floating
from softdraw.laws.categorical import CategoricalLaw, check_probabilities, from_probabilities
from softdraw.laws.checks import check_one_given, check_support, check_value
from softdraw.numerics import masked, two_categories
from softdraw.operators import bits
from softdraw.operators.bits import Bits
from softdraw.rules import fused
from softdraw.rules.fused import Request
from softdraw.rules.needs import Need
from softdraw.rules.pathwise import Pathwise
from softdraw.tensors import is_plain


class Bernoulli(CategoricalLaw):
    r"""A bit, 1 with probability sigmoid(logits).

    .. math:: p(b) = \sigma(\theta)^b\, \sigma(-\theta)^{1 - b}

    Drawn as the categorical law of the logits (0, theta), so every pathwise rule serves it through its own formula:
    shifting both logits changes no rule, and the gradient for theta is the second component.

    The first positional argument is ``logits``; torch's is ``probs``. Name it where code may see either.

    Args:
        logits: log-odds of 1, ``batch``, any floating dtype; kept as given. -inf is a bit that is always 0, +inf one
            that is always 1.
        probs: in place of logits: probabilities of 1, ``batch``, of 16 bits or more, from 0 to 1, both included.
        mask: bool, False = 1 is forbidden: the bit is always 0, with zero gradient. Broadcasts to the logits.
        rule: the gradient of ``rsample``; default ``ZGR()``. ``has_rsample`` is True where a rule is given.
        validate_args: whether samples given to ``log_prob`` must be 0 or 1. Default: torch's setting, on the CPU;
            True also checks on an accelerator, which waits for it, and that no logit is NaN.

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
    offers = (*CategoricalLaw.offers, Need.BITS)
    event_dims = 0

    def __init__(
        self,
        logits: Tensor | None = None,
        mask: Tensor | None = None,
        *,
        probs: Tensor | None = None,
        rule: Pathwise | None = None,
        validate_args: bool | None = None,
    ) -> None:
        if logits is None or probs is not None:
            check_one_given(logits, probs)
            logits = log_odds(probs)  # pyright: ignore[reportArgumentType]
        check_floating("logits", logits)
        allowed = None if mask is None else prepare_mask(mask, logits, max(logits.dim() - 1, 0))
        super().__init__(logits, allowed, rule, validate_args)

    @property
    def states(self) -> int:
        """2."""
        return 2

    def one_hot_logits(self) -> tuple[Tensor, Tensor | None]:
        """Logits (0, theta), ``(*batch, 2)``, or (-inf, 0) for theta = inf: category 0 is the bit 0."""
        theta = self.theta if self.theta.dtype.itemsize > 1 else self.theta.to(compute_dtype(self.theta.dtype))
        return two_categories(theta, self.allowed), None

    def embed(self, value: Tensor) -> Tensor:
        """(1 - b, b)."""
        return torch.stack((1 - value, value), -1)

    def extract(self, one_hot: Tensor) -> Tensor:
        """The second component."""
        return one_hot[..., 1].to(self.theta.dtype)

    def draw_exactly(self, shape: tuple[int, ...], seed: Tensor, rows: Tensor | None) -> Tensor:
        """Exact bits: 1 where theta + G_1 > G_0."""
        theta, allowed = self.theta.detach(), self.allowed
        b = fused.exact_bits(theta, Request(seed, _of_bits(rows), allowed, math.prod(shape) if shape else None))
        if b is None:
            return super().draw_exactly(shape, seed, rows)
        return b if len(shape) < 2 else b.reshape(*shape, *theta.shape)

    def draw_with(
        self, rule: Pathwise, shape: tuple[int, ...], value: Tensor | None, seed: Tensor | None, rows: Tensor | None
    ) -> Tensor:
        """Bits, drawn or given, under the rule: on one logit each, or as two categories where the rule needs those."""
        theta, samples, flat = self.theta, math.prod(shape) if shape else None, None
        if value is not None:
            flat = value.to(theta.dtype).reshape(theta.shape if samples is None else (samples, *theta.shape))
        ids = None if rows is None else _of_bits(rows)
        b = fused.draw_bits(rule, theta, Request(seed, ids, self.allowed, samples, flat))
        if b is None:
            return super().draw_with(rule, shape, value, seed, rows)
        return b if len(shape) < 2 else b.reshape(*shape, *theta.shape)

    @property
    def logits(self) -> Tensor:
        """The log-odds of 1, ``batch``; -inf where 1 is forbidden."""
        return self._log_odds().to(self.theta.dtype)

    @property
    def probs(self) -> Tensor:
        """The probability of 1, ``batch``."""
        return torch.sigmoid(self._log_odds()).to(self.theta.dtype)

    def log_prob(self, value: Tensor) -> Tensor:
        """log p(value), ``(..., *batch)``; -inf for what is forbidden."""
        check_value("value", value, self)
        if not bits.takes(self.theta, value):
            return super().log_prob(value)
        theta, dtype = self.masked_theta(), compute_dtype(self.theta.dtype)
        y = value if value.dtype == dtype else value.to(dtype)
        if y.shape != theta.shape:
            y, theta = torch.broadcast_tensors(y, theta)
        allowed = bits.ZERO_OR_ONE if self._validate_args else bits.ANY_NUMBER
        read = Bits(theta, y, None, None, None, 1.0, 0, True, allowed, 1)
        return bits.nll(read, lambda: check_support(value, self)).to(self.theta.dtype)

    def entropy(self) -> Tensor:
        """Entropy in nats, ``batch``; 0 for a bit that is certain."""
        if not bits.takes(self.theta):
            return super().entropy()
        return bits.entropy(self.masked_theta()).to(self.theta.dtype)

    @property
    def mode(self) -> Tensor:
        """1 where 1 is likelier than 0, else 0; without gradient."""
        x = self._log_odds().detach()
        return torch.where(x.isnan(), x, (x > 0).to(x.dtype)).to(self.theta.dtype)

    @property
    def variance(self) -> Tensor:
        """p (1 - p)."""
        if bits.takes(self.theta):
            return bits.variance(self.masked_theta()).to(self.theta.dtype)
        return self._variance().to(self.theta.dtype)

    def log_probs(self) -> Tensor:
        """log p(0) and log p(1), float32 or float64, ``(*batch, 2)``; finite gradients where one of them is certain."""
        x = self._log_odds()
        safe = x.masked_fill(x.isinf(), 0)
        off = (-softplus(safe)).masked_fill(x == torch.inf, -torch.inf).masked_fill(x == -torch.inf, 0)
        on = (-softplus(-safe)).masked_fill(x == -torch.inf, -torch.inf).masked_fill(x == torch.inf, 0)
        return torch.stack((off, on), -1)

    def log_normalizer(self) -> Tensor:
        """A(theta) = log(1 + exp(theta)), ``batch``; 0 where 1 is forbidden."""
        return softplus(self._log_odds()).to(self.theta.dtype)

    def covariance_product(self, grad: Tensor) -> Tensor:
        """p (1 - p) g."""
        check_value("grad", grad, self)
        variance = self._variance()
        return (variance * grad.to(variance.dtype)).to(self.theta.dtype)

    def _variance(self) -> Tensor:
        x = self._log_odds()
        return torch.sigmoid(x) * torch.sigmoid(-x)

    def _log_odds(self) -> Tensor:
        return masked(self.theta.to(compute_dtype(self.theta.dtype)), self.allowed)

    def masked_theta(self) -> Tensor:
        """The log-odds of 1 as the passes over bits take them: of theta's dtype where the kernels know it."""
        theta = self.theta if self.theta.dtype in bits.CODES else self.theta.to(compute_dtype(self.theta.dtype))
        return masked(theta, self.allowed)


def _of_bits(rows: Tensor | None) -> Tensor | None:
    """Ids ``(*batch, 1)`` of rows as those of bits, ``batch``."""
    return None if rows is None else rows.squeeze(-1)


def log_odds(probs: Tensor) -> Tensor:
    """log(p / (1 - p)), +-inf where a bit is certain, with a gradient that is 0 there."""
    check_probabilities(probs)
    if is_plain(probs) and probs.is_cpu and not bool(((probs >= 0) & (probs <= 1)).all()):
        raise ValueError(
            f"probs must be from 0 to 1, got values from {probs.min().item()} to {probs.max().item()}: "
            "logits go to logits="
        )
    wide = probs.to(compute_dtype(probs.dtype))
    return (from_probabilities(wide) - from_probabilities(1 - wide)).to(probs.dtype)
