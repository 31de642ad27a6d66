"""The law of k of n items."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.distributions import constraints

from softdraw.arguments import check_logits, compute_dtype, prepare_mask, prepare_shape
from softdraw.checks import check_bool, check_items
from softdraw.laws.checks import batch_index, check_listed, check_plain, check_states, check_value
from softdraw.laws.law import Law
from softdraw.numerics import k_hot
from softdraw.operators import subset
from softdraw.operators.subset import Size
from softdraw.rules.needs import Need
from softdraw.rules.pathwise import Pathwise


class KHot(constraints.Constraint):
    """Vectors with k ones and zeros elsewhere."""

    is_discrete = True
    event_dim = 1

    def __init__(self, k: int | Tensor) -> None:
        self.k = k

    def check(self, value: Tensor) -> Tensor:
        """Whether each value is one."""
        return ((value == 0) | (value == 1)).all(-1) & (value.sum(-1) == self.k)

    def __repr__(self) -> str:
        return f"{_shown(self.k)} ones, zeros elsewhere"


class Subset(Law):
    r"""k of n items without order, as a vector with k ones (conditional Bernoulli).

    .. math:: p(z) = \frac{\exp \langle \theta, z \rangle}{Z}, \qquad z \in \{0, 1\}^n, \quad \sum_i z_i = k

    It is the law of n independent bits of these log-odds, given that k of them are 1. Gumbel-top-k draws from another
    law, Plackett-Luce with its order dropped.

    Args:
        logits: theta, ``(*batch, n)``, any floating dtype. A constant added to a row changes nothing.
        k: how many items are chosen, from 0 to n: an int, or an integer tensor that broadcasts to the batch, whose
            values are read once. So in a function that torch.compile traces it has to be an int.
        mask: bool, True = allowed, broadcasts to the logits. A forbidden item is never chosen. A row that allows fewer
            than k items has no subset: its samples and its mean are zero, its log-normalizer is -inf.
        rule: the gradient of ``rsample``; default ``ZGR()``. ``has_rsample`` is True where a rule is given.
        validate_args: whether values given to ``log_prob`` must be subsets of size k. Default: torch's setting, on the
            CPU; True also checks on an accelerator, which waits for it, and that no logit is NaN.

    Returns:
        A ``torch.distributions.Distribution`` with batch shape ``batch`` and event shape ``(n,)``. Numbers are computed
        in float32 (float64 for float64) and cast to the dtype of the logits. A row with logits of +inf has the limit
        law in ``log_prob``, ``entropy`` and ``mean``; its samples and its mode are NaN, and a NaN row is NaN. With
        k = 1 every number is that of ``OneHotCategorical``; its draws have the same law from other noise.

    Gradient:
        Of ``log_prob``, ``log_normalizer``, ``entropy`` and ``mean``: exact. Of ``rsample``: that of the rule;
        ``StraightThrough()`` is SIMPLE, and ``ZGR()`` is unbiased for every quadratic f.

    Raises:
        TypeError, ValueError: naming the argument, what it got and what is allowed.

    Example:
        >>> law = softdraw.Subset(torch.tensor([0.0, 1.0, 2.0, -1.0]), k=2)
        >>> law.sample(seed=0), law.sample_index(seed=0)
        (tensor([0., 0., 1., 1.]), tensor([2, 3]))
        >>> law.mean
        tensor([0.3056, 0.6944, 0.8808, 0.1192])
        >>> law.log_normalizer(), law.log_prob(torch.tensor([0.0, 1.0, 1.0, 0.0]))
        (tensor(3.5345), tensor(-0.5345))

    Source:
        Chen, Dempster and Liu (1994), "Weighted finite population sampling to maximize entropy"; Ahmed, Zeng, Niepert
        and Van den Broeck (2023), "SIMPLE: a gradient estimator for k-subset sampling".
    """

    arg_constraints = {"logits": constraints.real_vector}  # noqa: RUF012  # pyright: ignore (torch's own form)
    has_enumerate_support = True
    offers = (Need.SAMPLES, Need.STATES, Need.FAMILY, Need.ITEMS)
    k: int | Tensor
    most: int  # the largest k

    def __init__(
        self,
        logits: Tensor,
        k: int | Tensor,
        mask: Tensor | None = None,
        *,
        rule: Pathwise | None = None,
        validate_args: bool | None = None,
    ) -> None:
        dim = check_logits(logits, -1)
        check_plain(logits, Subset, "draws and numbers")
        self.k, self.most = check_items(k, logits)
        if isinstance(self.k, Tensor):  # rows differ in how many subsets they have
            self.offers = tuple(need for need in type(self).offers if need is not Need.STATES)
        super().__init__(logits, prepare_mask(mask, logits, dim), rule, validate_args)

    @constraints.dependent_property(is_discrete=True, event_dim=1)
    def support(self) -> KHot:  # pyright: ignore
        """Vectors with k ones."""
        return KHot(self.k)

    @property
    def logits(self) -> Tensor:
        """theta, ``(*batch, n)``; -inf where forbidden."""
        return self.scores().to(self.theta.dtype)

    @property
    def mean(self) -> Tensor:
        """Inclusion probabilities, ``(*batch, n)``: they sum to k."""
        return subset.mean(self.scores(), self._size).to(self.theta.dtype)

    @property
    def probs(self) -> Tensor:
        """The inclusion probabilities."""
        return self.mean

    @property
    def variance(self) -> Tensor:
        """m (1 - m) of the inclusion probabilities."""
        m = subset.mean(self.scores().double(), self._size)  # so that 1 - m keeps its digits
        return (m * (1 - m)).to(self.theta.dtype)

    @property
    def mode(self) -> Tensor:
        """The k items of the largest logits, the smallest indices in a tie; without gradient."""
        return k_hot(self.scores().detach(), self.k).to(self.theta.dtype)

    def log_prob_wide(self, value: Tensor) -> Tensor:
        """log p(value), ``(..., *batch)``; -inf for a subset with a forbidden item."""
        return subset.log_density(self.scores(), self._size, value)

    def entropy(self) -> Tensor:
        """Entropy in nats, ``batch``."""
        return (-self.expected_log_prob(self)).to(self.theta.dtype)

    def expected_log_prob(self, other: Subset) -> Tensor:
        """The mean of ``other``'s log-probability under this law, in float64; 0 for a row that has no subset. log p is
        affine in the subset, so its mean is its value at the mean."""
        x, mine = other.scores().double(), self.scores().double()
        value = subset.log_density(x, other._size, subset.mean(mine, self._size))
        return value.masked_fill(self._too_few(mine).squeeze(-1), 0)

    def log_normalizer(self) -> Tensor:
        """A(theta) = log Z, ``batch``; -inf for a row that has no subset."""
        return subset.log_normalizer(self.scores(), self._size).to(self.theta.dtype)

    def covariance_product(self, grad: Tensor) -> Tensor:
        """The covariance of a subset times ``grad``."""
        if not torch.compiler.is_compiling():  # in a backward pass Dynamo refuses to look at a layout
            check_value("grad", grad, self)
        x, g = torch.broadcast_tensors(self.scores(), grad.to(compute_dtype(self.theta.dtype)))
        return subset.covariance(x, self._size, g).to(self.theta.dtype)

    def draw_exactly(self, shape: tuple[int, ...], seed: Tensor, rows: Tensor | None) -> Tensor:
        """Exact subsets, by a descent of the tree."""
        z = subset.sample(self.scores(), self._size, seed, rows, math.prod(shape))
        return z.reshape(*shape, *self.theta.shape).to(self.theta.dtype)

    def sample_index(self, sample_shape: tuple[int, ...] = (), **source: Any) -> Tensor:
        """The same subsets as sorted indices, ``(*sample_shape, *batch, k)``; arguments as for ``sample``. Behind a row
        with fewer than the largest k there is -1; so there is in a row without a subset, and in a NaN row."""
        return self.index_of(self.sample(prepare_shape("sample_shape", sample_shape), **source))

    def index_of(self, z: Tensor) -> Tensor:
        """Subsets as sorted indices, ``(..., k)``, with -1 behind them as in ``sample_index``."""
        z = z.to(compute_dtype(self.theta.dtype)) == 1
        place = (z.cumsum(-1) - 1).masked_fill(~z, self.most)
        index = torch.arange(z.shape[-1], device=z.device).expand(z.shape)
        return (
            torch.full_like(place[..., :1], -1)
            .expand(*z.shape[:-1], self.most + 1)
            .scatter(-1, place, index)[..., : self.most]
        )

    @property
    def states(self) -> int:
        """n! / (k! (n - k)!), where all rows have one k."""
        return super().states if isinstance(self.k, Tensor) else math.comb(self.theta.shape[-1], self.k)

    @property
    def log_states(self) -> float:
        """log(states), of which lgamma knows the factorials."""
        if isinstance(self.k, Tensor):
            return super().log_states
        return _log_chosen(self.theta.shape[-1], self.k)

    def state(self, index: Tensor) -> Tensor:
        """The subsets numbered ``index``, in the order of ``itertools.combinations``."""
        check_states(index, self.states)
        n, chosen = self.theta.shape[-1], []
        rest = torch.full_like(index, self.most)
        for i in range(n):
            # Of the subsets that agree so far, those with item i come first.
            ahead = [_chosen(n - i - 1, r - 1) for r in range(self.most + 1)]
            with_it = torch.tensor(ahead, device=index.device)[rest]
            take = index < with_it
            index, rest = torch.where(take, index, index - with_it), rest - take.long()
            chosen.append(take)
        return torch.stack(chosen, -1).to(self.theta.dtype)

    def enumerate_support(self, expand: bool = True) -> Tensor:
        """Every subset, ``(states, *batch, n)``, or ``(states, 1, ..., n)`` unexpanded; forbidden ones too."""
        check_bool("expand", expand)
        check_listed(self, self.theta.shape[-1])
        every = self.state(torch.arange(self.states, device=self.theta.device).view(-1, *[1] * len(self.batch_shape)))
        return every.expand(-1, *self.batch_shape, -1) if expand else every

    def contains(self, value: Tensor) -> Tensor:
        """Whether each value has k ones and zeros elsewhere; anything is taken for a row that has no subset."""
        return super().contains(value) | self._too_few(self.scores()).squeeze(-1)

    def __getitem__(self, index: Any) -> Any:
        """The law of a part of the batch."""
        part = super().__getitem__(index)
        if isinstance(self.k, Tensor):
            each = self.k.expand(self.batch_shape).unsqueeze(-1).expand(self.theta.shape)
            part.k = each[batch_index(index, self)][..., 0]
        return part

    def __repr__(self) -> str:
        return f"{super().__repr__()[:-1]}, k={_shown(self.k)})"

    @property
    def _size(self) -> Size:
        return Size(self.k, self.most)

    def _too_few(self, x: Tensor) -> Tensor:
        return subset.too_few(x, self._size)


def _log_chosen(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def _chosen(n: int, k: int) -> int:
    """n! / (k! (n - k)!), or 2^62 where it is larger: no index is."""
    if not 0 <= k <= n:
        return 0
    return min(math.comb(n, k), 2**62) if _log_chosen(n, k) < 44 else 2**62


def _shown(k: int | Tensor) -> str:
    return f"k of shape {tuple(k.shape)}" if isinstance(k, Tensor) else str(k)
