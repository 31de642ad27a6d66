"""The law of Plackett and Luce: orders of items."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor
from torch.distributions import constraints

from softdraw.arguments import check_logits, prepare_mask, row_ids
from softdraw.checks import check_bool, check_real, count
from softdraw.kernels.reference import orders
from softdraw.laws.checks import check_listed, check_plain, check_sample, check_states, check_support
from softdraw.laws.law import Law
from softdraw.numerics import one_hot, softmax
from softdraw.operators import indices
from softdraw.relaxations.soft_sort import sorted_rows
from softdraw.rules.conditional_noise import Noise
from softdraw.rules.needs import Need
from softdraw.tensors import is_plain

_SUMMED = 12  # items up to which sums over sets are made: 2^12 sets of 12


class Orders(constraints.Constraint):
    """``length`` items of ``n``, none of them twice; the last places may hold -1."""

    is_discrete = True
    event_dim = 1

    def __init__(self, n: int, length: int) -> None:
        self.n, self.length = n, length

    def check(self, value: Tensor) -> Tensor:
        """Whether each value is one."""
        each = value.sort(-1).values
        twice = (each[..., 1:] == each[..., :-1]) & (each[..., 1:] >= 0)
        known = (value >= -1) & (value < self.n) & (value == value.round() if value.is_floating_point() else True)
        back = ((value[..., :-1] < 0) & (value[..., 1:] >= 0)).any(-1)
        return known.all(-1) & ~twice.any(-1) & ~back

    def __repr__(self) -> str:
        return f"orders of {self.length} of {self.n} items, from 0 to {self.n - 1}, none of them twice"


class PlackettLuce(Law):
    r"""An order of n items, or its first places: each drawn from those that are left, in proportion to exp(theta).

    .. math:: p(b_1, \ldots, b_m) = \prod_{i=1}^m \frac{e^{\theta_{b_i}}}{\sum_{j \notin \{b_1, \ldots, b_{i-1}\}}
              e^{\theta_j}}

    It is the law of the indices that sort theta + G, largest first, with Gumbel noise G. It is no exponential family in
    the order, so no pathwise rule serves it: ``softdraw.expect`` takes a score-function rule.

    Args:
        logits: theta, ``(*batch, n)``, any floating dtype. A constant added to a row changes nothing.
        length: m, how many places are drawn, from 0 to n; default: all n.
        mask: bool, True = allowed, broadcasts to the logits. A forbidden item has no place. Where a row allows fewer
            than m items, its orders end in -1.
        validate_args: whether values given to ``log_prob`` must be orders. Default: torch's setting, on the CPU; True
            also checks on an accelerator, which waits for it, and that no logit is NaN.

    Returns:
        A ``torch.distributions.Distribution`` with batch shape ``batch`` and event shape ``(m,)``. Samples are int64
        indices, those of ``softdraw.gumbel_topk`` with the same seed; the first is that of ``softdraw.gumbel_max``.
        Numbers are computed in float64 or float32 and cast to the dtype of the logits. A row with logits of +inf has
        the limit law in ``log_prob`` and ``entropy``; its samples and its mode are -1, as those of a NaN row are, whose
        numbers are NaN. Of a DTensor there are draws, ``mode`` and ``probs``.

    Gradient:
        Of ``log_prob``, ``entropy``, ``marginals`` and ``scores_given``: exact. A sample has none.

    Raises:
        TypeError, ValueError: naming the argument, what it got and what is allowed. NotImplementedError: ``entropy``
        and ``marginals`` of more than 12 items, and ``mean``.

    Example:
        >>> law = softdraw.PlackettLuce(torch.tensor([0.5, -1.0, 1.2, 0.0, 0.3]), length=3)
        >>> law.sample((2,), seed=0)
        tensor([[0, 2, 3],
                [0, 1, 3]])
        >>> law.log_prob(torch.tensor([2, 0, 4])).exp(), law.mode
        (tensor(0.0810), tensor([2, 0, 4]))

    Source:
        Plackett (1975), "The analysis of permutations"; Luce (1959), "Individual choice behavior"; Yellott (1977) for
        the noise.
    """

    arg_constraints = {"logits": constraints.real_vector}  # noqa: RUF012  # pyright: ignore (torch's own form)
    has_enumerate_support = True
    offers = (Need.SAMPLES, Need.STATES, Need.SCORES)
    value_help: ClassVar[str] = "an order is as many indices of items, int64"
    length: int

    def __init__(
        self,
        logits: Tensor,
        length: int | None = None,
        mask: Tensor | None = None,
        *,
        validate_args: bool | None = None,
    ) -> None:
        dim = check_logits(logits, -1)
        n = logits.shape[-1]
        self.length = n if length is None else count("length", length, 0, f"how many of the {n} items have a place")
        if self.length > n:
            raise ValueError(f"length must be at most the {n} items of the logits, got {length}")
        super().__init__(logits, prepare_mask(mask, logits, dim), None, validate_args)

    @constraints.dependent_property(is_discrete=True, event_dim=1)
    def support(self) -> Orders:  # pyright: ignore
        """Orders of ``length`` items."""
        return Orders(self.theta.shape[-1], self.length)

    def event_of(self, theta: Tensor) -> torch.Size:
        """``(length,)``."""
        return torch.Size((self.length,))

    @property
    def logits(self) -> Tensor:
        """theta, ``(*batch, n)``; -inf where forbidden."""
        return self.scores().to(self.theta.dtype)

    @property
    def probs(self) -> Tensor:
        """The softmax of theta, ``(*batch, n)``: the probability that an item is the first, and the weights that items
        are drawn in proportion to."""
        return softmax(self.scores()).to(self.theta.dtype)

    @property
    def mean(self) -> Tensor:
        """There is none."""
        raise NotImplementedError("PlackettLuce has no mean, for an index is a name: marginals() has probabilities")

    @property
    def mode(self) -> Tensor:
        """The items in the order of their logits, the smallest index first in a tie; without gradient."""
        x = self.scores().detach()
        best = x.sort(dim=-1, descending=True, stable=True)
        spoilt = (x.isnan() | (x == math.inf)).any(-1, keepdim=True)
        return best.indices.masked_fill((best.values == -math.inf) | spoilt, -1)[..., : self.length]

    def log_prob_wide(self, value: Tensor) -> Tensor:
        """log p(value), ``(..., *batch)``; -inf for an order with a forbidden item."""
        x = self._scores_for_numbers()
        value = value.expand(torch.broadcast_shapes(value.shape, (*self.batch_shape, self.length)))
        return orders.log_density(x.double(), value).to(x.dtype)

    def entropy(self) -> Tensor:
        """Entropy in nats, ``batch``, by a sum over the sets of items: for at most 12 of them."""
        self._check_summed("entropy", "-law.log_prob(law.sample((1000,))).mean(0)")
        return orders.entropy(self._scores_for_numbers().double(), self.length).to(self.theta.dtype)

    def divergence(self, other: PlackettLuce) -> Tensor:
        """KL(self || other), ``batch``, by the same sum, for another law of orders of this length."""
        self._check_summed("divergence", "(p.log_prob(y) - q.log_prob(y)).mean(0) of y = p.sample((1000,))")
        x, y = torch.broadcast_tensors(*(law._scores_for_numbers().double() for law in (self, other)))
        return orders.divergence(x, y, self.length).to(self.theta.dtype)

    def marginals(self) -> Tensor:
        """The probability that an item has a place, ``(*batch, length, n)``, by a sum over the sets of items: for at
        most 12 of them. It is the mean of :meth:`matrix` of a sample."""
        self._check_summed("marginals", "law.matrix(law.sample((1000,))).mean(0)")
        return orders.marginals(self._scores_for_numbers().double(), self.length).to(self.theta.dtype)

    def matrix(self, value: Tensor) -> Tensor:
        """An order ``(..., length)`` as the matrix of its one-hots, ``(..., length, n)``, in the dtype of the logits; a
        floating-point matrix as it is, so that one f takes orders and relaxed ones (``Rebar``)."""
        check_real("value", value)
        return value if value.is_floating_point() else one_hot(value, self.theta.shape[-1], self.theta.dtype)

    def scores_given(
        self,
        value: Tensor,
        *,
        seed: int | Tensor | None = None,
        generator: torch.Generator | None = None,
        rows: int | Tensor = 0,
    ) -> Tensor:
        """theta + G given that ``value``, ``(*sample_shape, *batch, length)``, was drawn: ``(*sample_shape, *batch,
        n)``, in float32 or float64, exact and reparametrised in theta. Its noise is independent of every draw."""
        check_plain(self.theta, PlackettLuce, "scores_given")
        shape = check_sample(value, (), self)
        check_support(value, self)
        key, ids = self._source(seed, generator, rows)
        x = self.scores()
        x = x.expand(math.prod(shape), *x.shape)
        ids = row_ids(self.batch_shape, x.device) if ids is None else ids
        g = Noise(key, ids.unsqueeze(0), drawn=False).more(x, 0)[0]
        z = self.condition(x, value.long().reshape(*x.shape[:-1], self.length), g)
        return z.reshape(*shape, *self.theta.shape)

    def condition(self, theta: Tensor, sample: Tensor, noise: Tensor) -> Tensor:
        """Scores of ``theta`` given that ``sample`` is how they are sorted."""
        check_plain(theta, PlackettLuce, "conditional scores")
        return orders.condition(theta, sample, noise)

    def relax(self, scores: Tensor, tau: float | Tensor) -> Tensor:
        """The first rows of :func:`softdraw.soft_sort`, ``(..., length, n)``."""
        return sorted_rows(scores, tau, self.length).to(self.theta.dtype)

    def draw_exactly(self, shape: tuple[int, ...], seed: Tensor, rows: Tensor | None) -> Tensor:
        """Exact orders, as of ``softdraw.gumbel_topk``."""
        at = indices.topk(self.theta.detach(), seed, rows, self.allowed, 1.0, math.prod(shape), 0, self.length)
        return at.view(*shape, *self.batch_shape, self.length)

    @property
    def states(self) -> int:
        """n! / (n - length)!"""
        return math.perm(self.theta.shape[-1], self.length)

    @property
    def log_states(self) -> float:
        """log(states), of which lgamma knows the factorials."""
        n = self.theta.shape[-1]
        return math.lgamma(n + 1) - math.lgamma(n - self.length + 1)

    def state(self, index: Tensor) -> Tensor:
        """The orders numbered ``index``, which broadcasts with the batch, in the sequence of
        ``itertools.permutations``. In a row that allows fewer items than ``length`` one of those with the same items in
        front stands for the order that ends in -1; the others have the probability zero."""
        return self._ended(self._full(index))

    def enumerate_support(self, expand: bool = True) -> Tensor:
        """Every order, ``(states, *batch, length)``, or ``(states, 1, ..., length)`` unexpanded, where none ends in -1;
        those with forbidden items too."""
        check_bool("expand", expand)
        check_listed(self, self.length * (self.batch_shape.numel() if expand else 1))
        index = torch.arange(self.states, device=self.theta.device).view(-1, *[1] * len(self.batch_shape))
        return self.state(index.expand(-1, *self.batch_shape)) if expand else self._full(index)

    def read(self, value: Tensor) -> Tensor:
        """Indices."""
        return value.long()

    def contains(self, value: Tensor) -> Tensor:
        """Whether each value is an order that ends in -1 where, and only where, nothing is left."""
        short = (self._scores_for_numbers() != -math.inf).sum(-1).clamp_max(self.length)
        return self.support.check(value) & ((value >= 0).sum(-1) >= short)

    def __repr__(self) -> str:
        return f"{super().__repr__()[:-1]}, length={self.length})"

    def _scores_for_numbers(self) -> Tensor:
        check_plain(self.theta, PlackettLuce, "numbers")
        return self.scores()

    def _full(self, index: Tensor) -> Tensor:
        """Orders by their numbers: the next item is numbered among those that are left, which are in sequence."""
        check_plain(self.theta, PlackettLuce, "states")
        n, m = self.theta.shape[-1], self.length
        check_states(index, self.states)
        left = torch.arange(n, device=index.device).expand(*index.shape, n)
        found = []
        for place in range(m):
            behind = min(math.perm(n - place - 1, m - place - 1), 2**62)
            digit = (index // behind).unsqueeze(-1)
            index = index % behind
            found.append(left.gather(-1, digit).squeeze(-1))
            keep = torch.arange(left.shape[-1] - 1, device=index.device)
            left = torch.where(keep < digit, left[..., :-1], left[..., 1:])
        return torch.stack(found, -1) if found else index.new_empty((*index.shape, 0))

    def _ended(self, order: Tensor) -> Tensor:
        """Orders with -1 behind the last allowed item, where the forbidden ones behind it are the first of them."""
        forbidden = self.scores() == -math.inf
        count = (~forbidden).sum(-1, keepdim=True)
        if is_plain(count) and count.is_cpu and not bool((count < self.length).any()):
            return order.expand(torch.broadcast_shapes(order.shape, (*self.batch_shape, self.length)))
        place = torch.arange(self.length, device=order.device)
        first = (~forbidden).sort(dim=-1, stable=True).indices.gather(-1, (place - count).clamp_min(0))
        tail = place >= count
        ends = (~tail | (order == first)).all(-1, keepdim=True)
        return torch.where(ends & tail, -1, order)

    def _check_summed(self, name: str, way: str) -> None:
        n = self.theta.shape[-1]
        if n > _SUMMED:
            raise NotImplementedError(
                f"{name} of PlackettLuce is a sum over 2^n sets, for at most {_SUMMED} items, got n = {n}: estimate it "
                f"by {way}"
            )
