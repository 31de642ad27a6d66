"""The categorical law over one-hot vectors."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.distributions import constraints

from softdraw.arguments import check_logits, prepare_mask, tau_tensor
from softdraw.laws.law import Law
from softdraw.operators import draws
from softdraw.operators.softmax import softmax
from softdraw.rules.pathwise import Pathwise


class OneHotCategorical(Law):
    r"""One of K categories, as a one-hot vector.

    .. math:: p(D) = \prod_j \pi_j^{D_j}, \qquad \pi = \mathrm{softmax}(\theta)

    Args:
        logits: unnormalised log-probabilities, ``(*batch, K)``, any floating dtype; kept as given.
        mask: bool, True = allowed, broadcasts to the logits. A forbidden category has log-probability -inf and zero
            probability, samples and gradient; a row with nothing allowed is all zero.
        rule: the gradient of ``rsample``; default ``ZGR()``.
        validate_args: True checks the values of samples given to ``log_prob``.

    Returns:
        A ``torch.distributions.Distribution`` with batch shape ``batch`` and event shape ``(K,)``. Numbers are computed
        in float32 (float64 for float64) and cast to the dtype of the logits.

    Gradient:
        Of ``log_prob``, ``entropy``, ``mean`` and ``variance``: exact. Of ``rsample``: that of the rule.

    Raises:
        TypeError, ValueError: naming the argument, what it got and what is allowed.

    Example:
        >>> law = softdraw.OneHotCategorical(torch.tensor([1.0, 2.0, 3.0]), mask=torch.tensor([True, True, False]))
        >>> law.probs
        tensor([0.2689, 0.7311, 0.0000])
        >>> law.sample(seed=0)
        tensor([1., 0., 0.])
        >>> law.log_prob(torch.tensor([0.0, 1.0, 0.0])), law.entropy()
        (tensor(-0.3133), tensor(0.5822))

    Source:
        Gumbel (1954) for the sampler; ``torch.distributions.OneHotCategorical`` for the interface.
    """

    arg_constraints = {"logits": constraints.real_vector}  # noqa: RUF012  # pyright: ignore (torch's own form)
    support = constraints.one_hot  # pyright: ignore

    def __init__(
        self,
        logits: Tensor,
        mask: Tensor | None = None,
        *,
        rule: Pathwise | None = None,
        validate_args: bool | None = None,
    ) -> None:
        dim = check_logits(logits, -1)
        super().__init__(logits, prepare_mask(mask, logits, dim), rule, validate_args)

    @property
    def categories(self) -> int:
        """K."""
        return self.logits.shape[-1]

    def one_hot_logits(self) -> tuple[Tensor, Tensor | None]:
        """The logits and mask themselves."""
        return self.logits, self.mask

    def embed(self, value: Tensor) -> Tensor:
        """The sample itself."""
        return value

    def extract(self, one_hot: Tensor) -> Tensor:
        """The one-hot itself."""
        return one_hot

    @property
    def probs(self) -> Tensor:
        """Probabilities, ``(*batch, K)``."""
        return draws.gumbel_softmax_soft(self.logits, self._one(), None, None, self.mask, 0)

    @property
    def mean(self) -> Tensor:
        """The probabilities."""
        return self.probs

    @property
    def mode(self) -> Tensor:
        """The one-hot of the largest logit, the smallest index in a tie; without gradient."""
        return draws.gumbel_softmax_hard(self.logits.detach(), self._one(), None, None, self.mask, 0)

    @property
    def variance(self) -> Tensor:
        """p (1 - p), for each category."""
        p = softmax(self.scores())
        return (p * (1 - p)).to(self.logits.dtype)

    def log_prob(self, value: Tensor) -> Tensor:
        """log p(value), ``(..., *batch)``; -inf for a forbidden category."""
        value = self._check(value)
        return torch.where(value == 0, 0, value * self.log_probs()).sum(-1).to(self.logits.dtype)

    def log_probs(self) -> Tensor:
        """log p of every category, float32 or float64, ``(*batch, K)``; -inf where forbidden."""
        x = self.scores()
        forbidden = x == -math.inf
        safe = x.masked_fill(forbidden.all(-1, keepdim=True), 0)  # a row with nothing allowed has no softmax
        return safe.log_softmax(-1).masked_fill(forbidden, -math.inf)

    def entropy(self) -> Tensor:
        """Entropy in nats, ``batch``; a forbidden category counts for nothing."""
        log_p = self.log_probs()
        return -torch.where(log_p == -math.inf, 0, log_p.exp() * log_p).sum(-1).to(self.logits.dtype)

    def enumerate_support(self, expand: bool = True) -> Tensor:
        """Every one-hot, ``(K, *batch, K)``, or ``(K, 1, ..., K)`` with ``expand=False``; forbidden ones included."""
        k, n = self.categories, len(self.batch_shape)
        eye = torch.eye(k, dtype=self.logits.dtype, device=self.logits.device).view(k, *[1] * n, k)
        return eye.expand(k, *self.batch_shape, k) if expand else eye

    def uniform(self) -> OneHotCategorical:
        """The uniform law over the allowed categories: the other side of a KL to the uniform prior."""
        return OneHotCategorical(self.logits.detach().masked_fill(self.logits != -math.inf, 0), self.mask)

    def _one(self) -> Tensor:
        return tau_tensor(1.0, self.logits, self.logits.dim() - 1)
