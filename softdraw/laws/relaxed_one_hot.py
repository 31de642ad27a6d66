"""The concrete law: the exact law of a Gumbel-softmax sample on the simplex."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints

from softdraw.arguments import (
    check_logits,
    compute_dtype,
    prepare_mask,
    prepare_shape,
    row_ids,
    tau_tensor,
)
from softdraw.checks import check_floating
from softdraw.kernels.reference import checked
from softdraw.laws.checks import batch_index, check_parameters, check_support, check_value, prepare_batch
from softdraw.laws.one_hot import parameters
from softdraw.numerics import log_probs, logsumexp, masked
from softdraw.operators.softmax import softmax
from softdraw.rules.conditional_noise import Noise
from softdraw.seeds import keyed
from softdraw.tensors import is_plain


class RelaxedOneHotCategorical(Distribution):
    r"""A relaxed one-hot vector, the law of :math:`y = \mathrm{softmax}((\theta + G) / \tau)`.

    .. math:: \log p(y) = \log \Gamma(K) + (K - 1) \log \tau + \sum_j (z_j - \log y_j) - K \log \sum_j e^{z_j},
              \qquad z = \theta - \tau \log y

    At low temperatures y underflows to exact zeros; ``rsample_log`` and ``log_prob_log`` are the same law over
    log y, exact at any temperature.

    Args:
        tau: > 0, a number or a tensor that broadcasts with the logits' *batch* shape (no dimension for categories);
            ``temperature=``, torch's name for it, is taken as well.
        logits: unnormalised log-probabilities, ``(*batch, K)``, any floating dtype.
        probs: in place of logits: probabilities, ``(*batch, K)``, of 16 bits or more, not negative; divided by their
            sum.
        mask: bool, True = allowed, broadcasts to the logits; the law then lives on the face of the allowed categories.
        validate_args: whether samples given to ``log_prob`` must be on the simplex. Default: torch's setting, on the
            CPU. True also checks on an accelerator, which waits for it, and checks that no logit is NaN.

    Returns:
        A ``torch.distributions.Distribution``, its batch shape that of tau and the logits' batch together, its event
        shape ``(K,)``. A row with NaN or +inf among its logits is NaN, in samples and in ``log_prob``.

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
        tau: float | Tensor | None = None,
        logits: Tensor | None = None,
        mask: Tensor | None = None,
        *,
        probs: Tensor | None = None,
        temperature: float | Tensor | None = None,
        validate_args: bool | None = None,
    ) -> None:
        if (tau is None) == (temperature is None):
            raise TypeError("tau (or temperature, its other name) must be given, once")
        tau = temperature if tau is None else tau
        theta = parameters(logits, probs)
        allowed = prepare_mask(mask, theta, check_logits(theta, -1))
        batch = theta.shape[:-1]
        if isinstance(tau, Tensor):
            batch = _joint_batch(tau, theta)
        shape = (*batch, theta.shape[-1])
        self.theta, self.allowed = theta.expand(shape), None if allowed is None else allowed.expand(shape)
        per_row = tau.expand(batch).unsqueeze(-1) if isinstance(tau, Tensor) and tau.dim() else tau
        self._tau = tau_tensor(per_row, self.theta, len(batch))  # pyright: ignore[reportArgumentType]
        check_parameters(theta, validate_args)
        super().__init__(batch, theta.shape[-1:], validate_args=validate_args is True)
        if validate_args is None:
            del self._validate_args  # torch's setting applies, even if it changes later

    @property
    def tau(self) -> Tensor:
        """The temperature, of the batch shape (or 0-d)."""
        return self._tau.squeeze(-1) if self._tau.dim() else self._tau

    @property
    def temperature(self) -> Tensor:
        """torch's name for ``tau``."""
        return self.tau

    @property
    def logits(self) -> Tensor:
        """Normalised log-probabilities of the categories, ``(*batch, K)``."""
        return log_probs(self.scores()).to(self.theta.dtype)

    @property
    def probs(self) -> Tensor:
        """Probabilities of the categories, ``(*batch, K)``: how often each is the largest."""
        return log_probs(self.scores()).exp().to(self.theta.dtype)

    @property
    def param_shape(self) -> torch.Size:
        """The shape of the logits."""
        return self.theta.shape

    def __getitem__(self, index: Any) -> Any:
        """The law of a part of the batch: ``law[i]``, ``law[2:5]``, ``law[..., 0]``."""
        whole = batch_index(index, self)
        new = self.__new__(type(self))
        vars(new).update(vars(self))
        new.theta, new.allowed = self.theta[whole], None if self.allowed is None else self.allowed[whole]
        new._tau = self._tau.expand(*self.batch_shape, 1)[whole] if self._tau.dim() else self._tau
        new._batch_shape = new.theta.shape[:-1]
        return new

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> Any:
        """The law with its batch expanded; the copies' draws are independent."""
        batch_shape = prepare_batch(batch_shape, self)
        shape = torch.Size((*batch_shape, *self.event_shape))
        new = self.__new__(type(self)) if _instance is None else _instance
        vars(new).update(vars(self))
        new.theta, new.allowed = self.theta.expand(shape), None if self.allowed is None else self.allowed.expand(shape)
        new._tau = self._tau.expand(*batch_shape, 1) if self._tau.dim() else self._tau
        new._batch_shape = torch.Size(batch_shape)
        return new

    def sample(self, sample_shape: Sequence[int] = (), **source: Any) -> Tensor:
        """Relaxed samples without gradient; takes ``seed``, ``generator`` and ``rows`` as ``rsample`` does."""
        with torch.no_grad():
            return self.rsample(sample_shape, **source)

    def rsample(self, sample_shape: Sequence[int] = (), *, seed=None, generator=None, rows=0) -> Tensor:
        """Relaxed samples ``(*sample_shape, *batch, K)``, reparametrised; the arguments of ``softdraw.draw``."""
        shape = prepare_shape("sample_shape", sample_shape)
        s, tau = self._noisy(shape, seed, generator, rows)
        return softmax(s, tau).reshape(*shape, *self.theta.shape).to(self.theta.dtype)

    def rsample_log(self, sample_shape: Sequence[int] = (), *, seed=None, generator=None, rows=0) -> Tensor:
        """log y of the same samples, in float32 or float64: no value underflows, a forbidden category is at -inf."""
        shape = prepare_shape("sample_shape", sample_shape)
        s, tau = self._noisy(shape, seed, generator, rows)
        forbidden = s == -math.inf
        z = torch.where(forbidden, s, (s - s.detach().amax(-1, keepdim=True)) / tau.to(s.dtype))
        return (z - logsumexp(z)).reshape(*shape, *self.theta.shape)

    def log_prob(self, value: Tensor) -> Tensor:
        """The log-density of ``value`` on the simplex; a zero counts as the smallest normal number, so it is finite.
        Where a forbidden category has a part of the value it is -inf."""
        check_value("value", value, self)
        check_support(value, self)
        x = value.to(compute_dtype(self.theta.dtype))
        log_y = x.clamp_min(torch.finfo(x.dtype).tiny).log()
        allowed = self.scores() != -math.inf
        jacobian = torch.where(allowed, log_y, 0).sum(-1)
        return (self._log_density(log_y) - jacobian).to(self.theta.dtype)

    def log_prob_log(self, log_value: Tensor) -> Tensor:
        """The log-density of ``log_value`` = log y, with respect to log y (that of y less its Jacobian, sum log y)."""
        check_value("log_value", log_value, self)
        return self._log_density(log_value.to(compute_dtype(self.theta.dtype))).to(self.theta.dtype)

    def scores(self) -> Tensor:
        """The logits in float32 or float64, -inf where forbidden."""
        return masked(self.theta.to(compute_dtype(self.theta.dtype)), self.allowed)

    def contains(self, value: Tensor) -> Tensor:
        """Whether each value is on the simplex, up to the rounding of its dtype, as bools of the batch shape."""
        x, rounding = value.to(compute_dtype(self.theta.dtype)), 1e-6
        if value.is_floating_point():
            # Each y is off by at most eps / 2 of itself, and by half of the smallest number where it underflows.
            limits = torch.finfo(value.dtype)
            smallest = limits.smallest_normal * limits.eps
            rounding = max(rounding, limits.eps + value.shape[-1] * smallest / 2)
        return (x >= 0).all(-1) & ((x.sum(-1) - 1).abs() <= rounding)

    def __repr__(self) -> str:
        mask = "" if self.allowed is None else ", masked"
        tau = self._tau.item() if is_plain(self._tau) and self._tau.is_cpu and not self._tau.dim() else None
        tau = f"of shape {tuple(self.tau.shape)}" if tau is None else f"{tau:g}"
        return f"{type(self).__name__}(tau={tau}, logits of shape {tuple(self.theta.shape)}{mask})"

    def _log_density(self, log_y: Tensor) -> Tensor:
        x, tau = self.scores(), self._temperature(log_y.dtype)
        allowed = x != -math.inf
        z = torch.where(allowed, x - tau * torch.where(allowed, log_y, 0), -math.inf)
        k = allowed.sum(-1).to(log_y.dtype)
        log_tau = tau.log().squeeze(-1) if tau.dim() else tau.log()  # vmap squeezes no tensor without dimensions
        constant = torch.lgamma(k.clamp_min(1)) + (k - 1).clamp_min(0) * log_tau
        density = constant + torch.where(allowed, z, 0).sum(-1) - k * logsumexp(z).squeeze(-1)
        zero = math.log(torch.finfo(log_y.dtype).tiny) + 1  # log_prob takes a zero for tiny
        return density.masked_fill((~allowed & (log_y > zero)).any(-1), -math.inf)

    def _temperature(self, dtype: torch.dtype) -> Tensor:
        """tau in the compute dtype; a tensor's values are checked wherever they can be read."""
        readable = is_plain(self._tau) or not self._tau.is_cpu
        return checked(self._tau, dtype) if readable else self._tau.to(dtype)

    def _noisy(self, sample_shape: Sequence[int], seed: Any, generator: Any, rows: Any) -> tuple[Tensor, Tensor]:
        """Scores theta + G, ``(samples, *batch, K)``, and the temperature that broadcasts to them."""
        x = self.scores().expand(math.prod(sample_shape), *self.theta.shape)
        tau = self._temperature(x.dtype)
        key, ids = keyed(self.theta, self.batch_shape, seed, generator, rows)
        ids = row_ids(self.batch_shape, x.device) if ids is None else ids
        return x + Noise(key, ids.unsqueeze(0), drawn=True).gumbel(x), tau


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
