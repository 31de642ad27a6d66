"""What a law is: a torch distribution with natural parameters, a mask, a seed, and a gradient rule for ``rsample``.

A law says what is drawn; the rule says which gradient comes back. One-hots, bits and subsets are exponential families
p(z) = exp(<theta, z> - A(theta)): they offer ``log_normalizer`` = A, ``mean`` = grad A and ``covariance_product``, the
Hessian of A times a vector. A rule that needs no more serves them all.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints

from softdraw import numerics
from softdraw.arguments import compute_dtype, per_row, prepare_shape
from softdraw.checks import check_floating, given
from softdraw.laws.checks import (
    batch_index,
    check_allowed,
    check_parameters,
    check_sample,
    check_support,
    check_value,
    prepare_batch,
)
from softdraw.rules import pathwise
from softdraw.rules.needs import Need
from softdraw.rules.pathwise import Pathwise
from softdraw.rules.score_function import ScoreFunction
from softdraw.rules.zgr import ZGR
from softdraw.seeds import keyed, seed_for
from softdraw.tensors import matched

_DEFAULT = ZGR()


class Law(Distribution):
    """A law with natural parameters ``theta``, of which ``allowed`` (None: all) may be drawn.

    A new law defines ``draw_exactly`` and ``log_prob_wide``, lists in ``offers`` what it has for rules, and defines
    that.

    Parameters are checked for type and shape. The values of logits are not looked at: -inf forbids, and NaN makes its
    own row NaN. Probabilities are looked at on the CPU. Samples given to ``log_prob`` and ``draw`` are checked on the
    CPU, as torch's setting (``Distribution.set_default_validate_args``) has it. On an accelerator a check would wait
    for the device, so there only ``validate_args=True`` asks for it; that also checks that no logit is NaN.
    """

    has_rsample = False  # True where the user gave a rule: other libraries then take the law for reparametrised
    offers: tuple[Need, ...]
    event_dims: ClassVar[int] = 1
    theta: Tensor
    allowed: Tensor | None
    rule: Pathwise

    def __init__(
        self, theta: Tensor, allowed: Tensor | None, rule: Pathwise | None, validate_args: bool | None
    ) -> None:
        self.theta, self.allowed = theta, allowed
        if rule is None:
            self.rule = _DEFAULT
        else:
            self.rule, self.has_rsample = checked_rule(rule, self), True
        shape = theta.shape
        batch = shape[: len(shape) - self.event_dims] if self.event_dims else shape
        if validate_args is None:
            # torch's setting applies, even if it changes later. This is all else that Distribution.__init__ does.
            self._batch_shape, self._event_shape = batch, self.event_of(theta)
            return
        check_parameters(theta, validate_args)
        super().__init__(batch, self.event_of(theta), validate_args=validate_args)

    def event_of(self, theta: Tensor) -> torch.Size:
        """The shape of a sample of one law with such parameters; by default that of its parameters."""
        return theta.shape[theta.dim() - self.event_dims :]

    @abstractmethod
    def draw_exactly(self, shape: tuple[int, ...], seed: Tensor, rows: Tensor | None) -> Tensor:
        """Exact samples ``(*shape, *batch, *event)``, without gradient; ``rows``: an id each. They have the dtype of
        theta, unless they are indices."""

    @abstractmethod
    def log_prob_wide(self, value: Tensor) -> Tensor:
        """log p(value) in float32 or float64, ``(..., *batch)``, of a value that fits."""

    def log_normalizer(self) -> Tensor:
        """A(theta), ``batch``: the logarithm of what the exponentials of all samples sum to."""
        raise NotImplementedError(f"{type(self).__name__} is not an exponential family: it has no log_normalizer")

    def covariance_product(self, grad: Tensor) -> Tensor:
        """The covariance of a sample times ``grad``, ``(..., *batch, *event)``: (Hessian of A) g."""
        raise NotImplementedError(f"{type(self).__name__} is not an exponential family: it has no covariance_product")

    @property
    def states(self) -> int:
        """The number of samples that there are, forbidden ones included."""
        raise NotImplementedError(f"{type(self).__name__} cannot be enumerated")

    @property
    def log_states(self) -> float:
        """log(states), by a form of its own where ``states`` may have a million digits."""
        return math.log(self.states)

    def state(self, index: Tensor) -> Tensor:
        """The samples numbered ``index``, ``(..., *event)``."""
        raise NotImplementedError(f"{type(self).__name__} cannot be enumerated")

    @property
    def param_shape(self) -> torch.Size:
        """The shape of the parameters."""
        return self.theta.shape

    def scores_of_theta(self) -> Tensor:
        """theta in float32 or float64, -inf where forbidden."""
        return numerics.masked(self.theta.to(compute_dtype(self.theta.dtype)), self.allowed)

    def scores(self) -> Tensor:
        """The natural parameters of what is drawn, of the shape of its events: theta, -inf where forbidden."""
        return self.scores_of_theta()

    def tempered(self, tau: float | Tensor) -> Law:
        """The law of theta / tau."""
        if isinstance(tau, Tensor) and not torch.compiler.is_compiling():  # in a backward pass Dynamo refuses to look
            check_floating("tau", tau)
        unchanged = isinstance(tau, float) and tau == 1
        return self if unchanged else self.replace(self.theta / per_row(tau, self.theta), self.allowed)

    def uniform(self) -> Law:
        """The uniform law over what is allowed: the other side of a KL to the uniform prior."""
        x = self.scores_of_theta().detach()  # of theta, whose shape the uniform law has, not of one-hots
        return self.replace(x.masked_fill(x != -math.inf, 0).to(self.theta.dtype), self.allowed)

    def replace(self, theta: Tensor, allowed: Tensor | None, instance: Any = None) -> Any:
        """The same kind of law, with everything else that this one has, for other parameters."""
        new = self.__new__(type(self)) if instance is None else instance
        vars(new).update(vars(self))
        batch_dims = theta.dim() - self.event_dims
        vars(new).update(theta=theta, allowed=allowed)
        vars(new).update(_batch_shape=theta.shape[:batch_dims], _event_shape=new.event_of(theta))
        return new

    def detach(self) -> Any:
        """The same law, whose parameters get no gradient."""
        return self.replace(self.theta.detach(), self.allowed)

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> Any:
        """The law with its batch expanded; the copies' draws are independent."""
        shape = (*prepare_batch(batch_shape, self), *self.theta.shape[len(self.batch_shape) :])
        allowed = None if self.allowed is None else self.allowed.expand(shape)
        return self.replace(self.theta.expand(shape), allowed, _instance)

    def __getitem__(self, index: Any) -> Any:
        """The law of a part of the batch: ``law[i]``, ``law[2:5]``, ``law[..., 0]``."""
        whole = batch_index(index, self)
        return self.replace(self.theta[whole], None if self.allowed is None else self.allowed[whole])

    def sample(
        self,
        sample_shape: Sequence[int] = (),
        *,
        seed: int | Tensor | None = None,
        generator: torch.Generator | None = None,
        rows: int | Tensor = 0,
    ) -> Tensor:
        """Exact samples ``(*sample_shape, *batch, *event)``, without gradient; arguments as for ``softdraw.draw``."""
        shape = prepare_shape("sample_shape", sample_shape)
        key, ids = self._source(seed, generator, rows)
        return self.draw_exactly(shape, key, ids)

    def rsample(
        self,
        sample_shape: Sequence[int] = (),
        *,
        rule: Pathwise | None = None,
        value: Tensor | None = None,
        seed: int | Tensor | None = None,
        generator: torch.Generator | None = None,
        rows: int | Tensor = 0,
    ) -> Tensor:
        """Samples with the gradient of ``rule`` (default: the law's own rule); arguments as for ``softdraw.draw``."""
        rule = checked_rule(self.rule if rule is None else rule, self)
        shape = prepare_shape("sample_shape", sample_shape)
        if value is not None:
            shape = check_sample(value, shape, self)
            check_support(value, self)
            check_allowed(value, self)
        if seed is None and generator is None and type(rows) is int and not rows:
            return self.draw_with(rule, shape, value, None, None)
        return self.draw_with(rule, shape, value, *self._source(seed, generator, rows))

    def draw_with(
        self, rule: Pathwise, shape: tuple[int, ...], value: Tensor | None, seed: Tensor | None, rows: Tensor | None
    ) -> Tensor:
        """Samples ``(*shape, *batch, *event)``, drawn or given, with the gradient of ``rule``. Without a seed they get
        one of torch's default generator."""
        seed = seed_for(self.theta, None, None) if seed is None else seed
        hard = self.draw_exactly(shape, seed, rows) if value is None else value.detach().to(self.theta.dtype)
        hard = hard.reshape(math.prod(shape), *self.theta.shape)
        theta = self.scores().expand(hard.shape)
        y = pathwise.attach(rule, lambda x: self.replace(x, None), theta, hard, seed, rows, value is None)
        return y.reshape(*shape, *self.theta.shape)

    def log_prob(self, value: Tensor) -> Tensor:
        """log p(value), ``(..., *batch)``; -inf for what is forbidden."""
        check_value("value", value, self)
        check_support(value, self)
        return self.log_prob_wide(matched("value", self.read(value), self.theta)).to(self.theta.dtype)

    def read(self, value: Tensor) -> Tensor:
        """A given value in the dtype that the law computes with."""
        return value.to(compute_dtype(self.theta.dtype))

    def contains(self, value: Tensor) -> Tensor:
        """Whether each value is in the support, as bools of the batch shape."""
        support: constraints.Constraint = self.support  # pyright: ignore[reportAssignmentType]
        return support.check(self.read(value))

    def forbids(self, value: Tensor) -> Tensor:
        """Whether each value has something where the law forbids it, as bools of the batch shape."""
        return ((value != 0) & (self.scores() == -math.inf)).any(-1)

    def __repr__(self) -> str:
        mask = "" if self.allowed is None else ", masked"
        rule = f", rule={self.rule}" if self.has_rsample else ""
        return f"{type(self).__name__}(logits of shape {tuple(self.theta.shape)}{mask}{rule})"

    def _source(self, seed: Any, generator: Any, rows: int | Tensor) -> tuple[Tensor, Tensor | None]:
        return keyed(self.theta, self.batch_shape, seed, generator, rows)


def checked_rule(rule: object, law: Law | type[Law]) -> Pathwise:
    """``rule``, after a check that it is one that serves the law."""
    if not isinstance(rule, Pathwise):
        raise TypeError(refused_rule(rule))
    rule.check_serves(law)
    return rule


def refused_rule(rule: object) -> str:
    """Why ``rule`` is no pathwise rule, and what to write."""
    wanted = f"rule must be a pathwise rule such as softdraw.ReinMax(), got {given(rule)}"
    if isinstance(rule, type) and issubclass(rule, Pathwise):
        return f"{wanted}: write {rule.__name__}()"
    if isinstance(rule, ScoreFunction) or (isinstance(rule, type) and issubclass(rule, ScoreFunction)):
        return f"{wanted}: a score-function rule goes to softdraw.expect"
    return wanted
