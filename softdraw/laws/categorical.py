"""What one-hots and bits share: each is a categorical law over one-hots, drawn as the argmax of Gumbel noise."""

from __future__ import annotations

import math
from abc import abstractmethod

import torch
from torch import Tensor

from softdraw import numerics
from softdraw.arguments import compute_dtype
from softdraw.checks import check_bool, check_floating
from softdraw.laws.checks import check_listed, check_states
from softdraw.laws.law import Law
from softdraw.operators.softmax import softmax
from softdraw.rules import fused
from softdraw.rules.fused import Request
from softdraw.rules.needs import Need
from softdraw.rules.pathwise import Pathwise


class CategoricalLaw(Law):
    """A law whose samples are one-hots in another form: ``one_hot_logits`` gives the law over these, ``embed`` and
    ``extract`` map samples to and from them."""

    has_enumerate_support = True
    offers = (Need.SAMPLES, Need.STATES, Need.FAMILY, Need.NOISE, Need.SCORES)

    @abstractmethod
    def one_hot_logits(self) -> tuple[Tensor, Tensor | None]:
        """Logits and mask, ``(*batch, C)``, of the same law over one-hots."""

    @abstractmethod
    def embed(self, value: Tensor) -> Tensor:
        """Samples as one-hots."""

    @abstractmethod
    def extract(self, one_hot: Tensor) -> Tensor:
        """One-hots as samples; linear."""

    @abstractmethod
    def log_probs(self) -> Tensor:
        """log p of every category in float32 or float64, ``(*batch, C)``; -inf where forbidden."""

    @property
    @abstractmethod
    def probs(self) -> Tensor:
        """Probabilities, of the shape of the parameters."""

    @property
    def mean(self) -> Tensor:
        """The probabilities."""
        return self.probs

    def scores(self) -> Tensor:
        """The one-hot logits in float32 or float64, -inf where forbidden."""
        logits, mask = self.one_hot_logits()
        return numerics.masked(logits.to(compute_dtype(logits.dtype)), mask)

    def condition(self, theta: Tensor, sample: Tensor, noise: Tensor) -> Tensor:
        """Scores of the one-hot logits ``theta`` given that ``sample`` is their argmax."""
        return numerics.condition(theta, self.embed(sample).to(theta.dtype), noise)

    def relax(self, scores: Tensor, tau: float | Tensor) -> Tensor:
        """The softmax of the scores, as a sample."""
        return self.extract(softmax(scores, tau)).to(self.theta.dtype)

    def entropy(self) -> Tensor:
        """Entropy in nats, ``batch``; a forbidden category counts for nothing."""
        log_p = self.log_probs()
        return numerics.times(log_p.exp(), -log_p).sum(-1).to(self.theta.dtype)

    def log_prob_wide(self, value: Tensor) -> Tensor:
        """log p(value), ``(..., *batch)``; -inf for a forbidden category."""
        chosen = self.embed(value.to(compute_dtype(self.theta.dtype)))
        return numerics.times(*torch.broadcast_tensors(chosen, self.log_probs())).sum(-1)

    def forbids(self, value: Tensor) -> Tensor:
        """Whether each value is a forbidden category, as bools of the batch shape."""
        return ((self.embed(value) != 0) & (self.scores() == -math.inf)).any(-1)

    def state(self, index: Tensor) -> Tensor:
        """The samples numbered ``index``."""
        check_states(index, self.states)
        one_hot = numerics.one_hot(index, self.states, compute_dtype(self.theta.dtype))
        return self.extract(one_hot).to(self.theta.dtype)

    def enumerate_support(self, expand: bool = True) -> Tensor:
        """Every sample, ``(C, *batch, *event)``, or ``(C, 1, ..., *event)`` unexpanded; forbidden ones too."""
        check_bool("expand", expand)
        check_listed(self, self.states)
        index = torch.arange(self.states, device=self.theta.device).view(-1, *[1] * len(self.batch_shape))
        every = self.state(index)
        return every.expand(-1, *self.batch_shape, *self.event_shape) if expand else every

    def draw_exactly(self, shape: tuple[int, ...], seed: Tensor, rows: Tensor | None) -> Tensor:
        """Exact samples, as of ``softdraw.gumbel_max``."""
        logits, mask = self.one_hot_logits()
        y = fused.exact_one_hots(logits, Request(seed, rows, mask, math.prod(shape) if shape else None))
        return self.extract(y if len(shape) < 2 else y.reshape(*shape, *logits.shape))

    def draw_with(
        self, rule: Pathwise, shape: tuple[int, ...], value: Tensor | None, seed: Tensor | None, rows: Tensor | None
    ) -> Tensor:
        """Samples, drawn or given, as one-hots under the rule."""
        logits, mask = self.one_hot_logits()
        samples = math.prod(shape) if shape else None
        if value is not None:
            value = self.embed(value.to(logits.dtype))
            value = value if len(shape) < 2 else value.reshape(math.prod(shape), *logits.shape)
        y = fused.draw_one_hots(rule, logits, Request(seed, rows, mask, samples, value))
        return self.extract(y if len(shape) < 2 else y.reshape(*shape, *logits.shape))


def check_probabilities(probs: Tensor) -> None:
    """``probs`` is floating point, of a dtype whose logarithms tell small probabilities apart and have a -inf."""
    check_floating("probs", probs)
    if probs.dtype.itemsize == 1:
        raise TypeError(f"probs must have 16 bits or more, got {probs.dtype}: write probs.half(), or give logits=")


def from_probabilities(probs: Tensor) -> Tensor:
    """log p with a gradient that is 0, not NaN, where p is 0; a probability of 0 stays 0."""
    never = probs == 0
    return probs.masked_fill(never, 1).log().masked_fill(never, -math.inf)
