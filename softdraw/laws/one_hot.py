"""The categorical law over one-hot vectors."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import constraints

from softdraw import numerics
from softdraw.arguments import check_logits, compute_dtype, prepare_mask, tau_tensor
from softdraw.checks import number
from softdraw.kernels.native import CHECKS
from softdraw.kernels.pass_reference import Rows
from softdraw.laws.categorical import CategoricalLaw, check_probabilities, from_probabilities
from softdraw.laws.checks import check_one_given, check_value
from softdraw.laws.law import Law
from softdraw.operators import draws, passes
from softdraw.rules import fused
from softdraw.rules.fused import Request
from softdraw.rules.pathwise import Pathwise
from softdraw.seeds import keyed
from softdraw.tensors import is_plain, split_over_categories


class OneHotCategorical(CategoricalLaw):
    r"""One of K categories, as a one-hot vector.

    .. math:: p(D) = \prod_j \pi_j^{D_j}, \qquad \pi = \mathrm{softmax}(\theta)

    The first positional argument is ``logits``; torch's is ``probs``. Name it where code may see either.

    Args:
        logits: unnormalised log-probabilities, ``(*batch, K)``, any floating dtype.
        probs: in place of logits: probabilities, ``(*batch, K)``, of 16 bits or more, not negative; divided by their
            sum. A category of probability 0 is never drawn; a row of zeros allows nothing.
        mask: bool, True = allowed, broadcasts to the logits. A forbidden category has log-probability -inf and zero
            probability, samples and gradient; a row with nothing allowed is all zero.
        rule: the gradient of ``rsample``; default ``ZGR()``. ``has_rsample`` is True where a rule is given.
        uniform: e, from 0 to below 1, the share of the uniform law that is mixed in. With K categories allowed,
            :math:`\log \pi_j = \log((1 - e)\, \mathrm{softmax}(\theta)_j + e / K)`: none of them has less than e / K.
            Every number, draw and gradient of the law is then that of the mixture.
        validate_args: whether samples given to ``log_prob`` must be one-hots. Default: torch's setting, on the CPU;
            True also checks on an accelerator, which waits for it, and that no logit is NaN.

    Returns:
        A ``torch.distributions.Distribution`` with batch shape ``batch`` and event shape ``(K,)``. Numbers are computed
        in float32 (float64 for float64) and cast to the dtype of the logits. ``logits`` are normalised, as torch's;
        ``theta`` are those that were given. A row with logits of +inf has the limit law, uniform over them, in
        ``log_prob``, ``entropy`` and ``probs``; its samples and its mode are NaN.

    Gradient:
        Of ``log_prob``, ``entropy``, ``mean`` and ``variance``: exact. Of ``rsample``: that of the rule. With
        ``uniform`` a rule acts on the logits of the mixture, and autograd goes on from there to the given ones. The
        gradient of ``log_prob`` is then finite for every finite logit.

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
        >>> softdraw.OneHotCategorical(torch.tensor([0.0, 200.0]), uniform=0.01).probs
        tensor([0.0050, 0.9950])

    Source:
        Gumbel (1954) for the sampler; ``torch.distributions.OneHotCategorical`` for the interface; Hafner et al.
        (2023), "Mastering diverse domains through world models", for the mixture with 1 % of the uniform law.
    """

    arg_constraints = {"logits": constraints.real_vector}  # noqa: RUF012  # pyright: ignore (torch's own form)
    support = constraints.one_hot  # pyright: ignore
    mixing = 0.0  # the share of the uniform law; ``uniform`` is a method of every law

    def __init__(
        self,
        logits: Tensor | None = None,
        mask: Tensor | None = None,
        *,
        probs: Tensor | None = None,
        rule: Pathwise | None = None,
        uniform: float = 0.0,
        validate_args: bool | None = None,
    ) -> None:
        if type(uniform) is not float or uniform != 0:
            self.mixing = uniform_share("uniform", uniform)
        theta = parameters(logits, probs)
        dim = check_logits(theta, -1)
        super().__init__(theta, prepare_mask(mask, theta, dim), rule, validate_args)

    @property
    def states(self) -> int:
        """K."""
        return self.theta.shape[-1]

    def one_hot_logits(self) -> tuple[Tensor, Tensor | None]:
        """The logits and mask themselves, or the logits of the mixture, -inf where forbidden."""
        if not self.mixing:
            return self.theta, self.allowed
        infinite = (self.scores_of_theta() == torch.inf).any(-1, keepdim=True)  # such a row's samples are NaN
        return self.scores().masked_fill(infinite, torch.nan), None

    def scores(self) -> Tensor:
        """The logits of the one-hots that are drawn, in float32 or float64, -inf where forbidden."""
        x = self.scores_of_theta()
        return numerics.mixed(x, self.mixing) if self.mixing else x

    def rows(self) -> tuple[Tensor, Tensor | None]:
        """Logits and mask as passes over rows take them, which know the limits at infinite logits."""
        return (self.scores(), None) if self.mixing else (self.theta, self.allowed)

    def tempered(self, tau: float | Tensor) -> Law:
        """The law of the logits over tau: those of the mixture where there is one."""
        if not self.mixing:
            return super().tempered(tau)
        new = self.replace(self.scores(), None)
        new.mixing = 0.0
        return new.tempered(tau)

    def draw_with_index(
        self, rule: Pathwise, seed: int | Tensor | None, generator: torch.Generator | None, rows: int | Tensor
    ) -> tuple[Tensor, Tensor]:
        """``rsample`` of a rule that was checked, and the category of each draw."""
        key, ids = keyed(self.theta, self.batch_shape, seed, generator, rows)
        logits, mask = self.one_hot_logits()
        y, index = fused.draw_with_index(rule, logits, Request(key, ids, mask))
        return self.extract(y), index

    def embed(self, value: Tensor) -> Tensor:
        """The sample itself."""
        return value

    def extract(self, one_hot: Tensor) -> Tensor:
        """The one-hot itself, in the dtype of the law."""
        return one_hot.to(self.theta.dtype) if self.mixing else one_hot

    @property
    def logits(self) -> Tensor:
        """Normalised log-probabilities, ``(*batch, K)``."""
        return self.log_probs().to(self.theta.dtype)

    @property
    def probs(self) -> Tensor:
        """Probabilities, ``(*batch, K)``."""
        return numerics.probs(self.scores()).to(self.theta.dtype)

    @property
    def mode(self) -> Tensor:
        """The one-hot of the largest logit, the smallest index in a tie; without gradient."""
        one = tau_tensor(1.0, self.theta, self.theta.dim() - 1)
        return draws.gumbel_softmax_hard(self.theta.detach(), one, None, None, self.allowed, 0)

    @property
    def variance(self) -> Tensor:
        """p (1 - p), for each category."""
        p = numerics.probs(self.scores())
        return (p * (1 - p)).to(self.theta.dtype)

    def log_probs(self) -> Tensor:
        """log p of every category, float32 or float64, ``(*batch, K)``; -inf where forbidden."""
        return numerics.log_probs(self.scores())

    def entropy(self) -> Tensor:
        """Entropy in nats, ``batch``; a forbidden category counts for nothing."""
        x, allowed = self.rows()
        if split_over_categories(x):
            from softdraw.distributed import dtensor

            return dtensor.entropy(x, allowed).to(self.theta.dtype)
        return passes.entropy(Rows(x, mask=allowed), -1.0, 0.0).to(self.theta.dtype)

    def log_prob_wide(self, value: Tensor) -> Tensor:
        """log p(value), ``(..., *batch)``; -inf for a forbidden category."""
        value = value.to(compute_dtype(self.theta.dtype))
        x, allowed = self.rows()
        if split_over_categories(x):
            from softdraw.distributed import dtensor

            return -dtensor.nll(x, value, allowed)
        return passes.nll(Rows(x, value, allowed), -1.0, CHECKS["Anything"], 0.0)

    def log_normalizer(self) -> Tensor:
        """A(theta) = log sum exp(theta) over what is allowed, ``batch``; -inf where nothing is. 0 for a mixture."""
        x = self.scores()
        nothing, total = (x == -torch.inf).all(-1), numerics.logsumexp(x).squeeze(-1)
        total = total - total.detach() if self.mixing else total  # the logits of the mixture are normalised: it is 0
        return total.masked_fill(nothing, -torch.inf).to(self.theta.dtype)

    def covariance_product(self, grad: Tensor) -> Tensor:
        """J(p) g = p (g - <p, g>)."""
        check_value("grad", grad, self)
        p = numerics.probs(self.scores())
        return numerics.softmax_vjp(p, grad.to(p.dtype)).to(self.theta.dtype)


def uniform_share(name: str, value: object) -> float:
    """The share of the uniform law that was given as ``name``, after a check."""
    share = float(number(name, value, "a number from 0 to below 1"))
    if not 0 <= share < 1:
        raise ValueError(
            f"{name} must be from 0 to below 1, got {share}: it is the share of the uniform law, such as 0.01"
        )
    return share


def parameters(logits: Tensor | None, probs: Tensor | None) -> Tensor:
    """The logits that were given, or those of probabilities divided by their sum."""
    check_one_given(logits, probs)
    if probs is None:
        return logits  # pyright: ignore[reportReturnType]
    check_probabilities(probs)
    if probs.dim() == 0:
        raise ValueError("probs must have a dimension of categories, got a 0-d tensor: give it the shape (..., K)")
    if probs.shape[-1] == 0:
        raise ValueError(f"probs must have at least one category, got shape {tuple(probs.shape)}")
    wide = probs.to(compute_dtype(probs.dtype))
    total = wide.sum(-1, keepdim=True)
    if is_plain(probs) and probs.is_cpu and not bool((wide >= 0).all() & total.isfinite().all()):
        raise ValueError(
            f"probs must not be negative or NaN, and their sum must be finite, got values from {wide.min().item()} to "
            f"{wide.max().item()}: logits go to logits="
        )
    return from_probabilities(wide / torch.where(total == 0, 1, total)).to(probs.dtype)
