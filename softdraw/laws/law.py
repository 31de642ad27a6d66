"""What a law is: a torch distribution with an exact sampler, a mask, a seed, and a gradient rule for ``rsample``.

A law says what is drawn; the rule says which gradient comes back. Both laws of single draws are, underneath, one
categorical law over one-hots: ``one_hot_logits`` gives it, ``embed`` and ``extract`` map samples to and from it.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution

from softdraw import numerics
from softdraw.arguments import compute_dtype, prepare_rows
from softdraw.rules import pathwise
from softdraw.rules.pathwise import Pathwise
from softdraw.rules.zgr import ZGR
from softdraw.seeds import prepare_seed


class Law(Distribution):
    """A finite law with parameters ``logits`` and ``mask``; subclasses say how its events are one-hots.

    Arguments are checked for type and shape, never for values: -inf forbids, NaN makes its own row NaN, and reading
    values would wait for an accelerator. ``validate_args=True`` checks the values of samples in ``log_prob`` as well.
    """

    has_rsample = True
    has_enumerate_support = True
    binary = False
    logits: Tensor
    mask: Tensor | None
    rule: Pathwise

    def __init__(self, logits: Tensor, mask: Tensor | None, rule: Pathwise | None, validate_args: bool | None) -> None:
        if rule is not None and not isinstance(rule, Pathwise):
            raise TypeError(
                f"rule must be a pathwise rule such as softdraw.ZGR(), got {type(rule).__name__}: "
                "score-function rules go to softdraw.expect"
            )
        self.logits, self.mask, self.rule = logits, mask, rule or ZGR()
        batch_dims = logits.dim() if self.binary else logits.dim() - 1
        super().__init__(logits.shape[:batch_dims], logits.shape[batch_dims:], bool(validate_args))

    @property
    @abstractmethod
    def categories(self) -> int:
        """The number of values of one draw."""

    @abstractmethod
    def one_hot_logits(self) -> tuple[Tensor, Tensor | None]:
        """Logits and mask, ``(*batch, C)``, of the same law over one-hots."""

    @abstractmethod
    def embed(self, value: Tensor) -> Tensor:
        """Samples as one-hots."""

    @abstractmethod
    def extract(self, one_hot: Tensor) -> Tensor:
        """One-hots as samples; linear."""

    def scores(self) -> Tensor:
        """The one-hot logits in float32 or float64, -inf where forbidden."""
        logits, mask = self.one_hot_logits()
        return numerics.masked(logits.to(compute_dtype(logits.dtype)), mask)

    def replace(self, logits: Tensor, mask: Tensor | None) -> Law:
        """The same kind of law, with the same rule, for other logits and mask."""
        return type(self)(logits, mask, rule=self.rule, validate_args=self._validate_args)

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> Law:
        """The law with its batch expanded; the copies' draws are independent."""
        shape = (*batch_shape, *self.event_shape)
        return self.replace(self.logits.expand(shape), None if self.mask is None else self.mask.expand(shape))

    def sample(
        self,
        sample_shape: Sequence[int] = (),
        *,
        seed: int | Tensor | None = None,
        generator: torch.Generator | None = None,
        rows: int | Tensor = 0,
    ) -> Tensor:
        """Exact samples ``(*sample_shape, *batch, *event)``, without gradient; arguments as for ``softdraw.draw``."""
        logits, mask = self.one_hot_logits()
        key, ids = self._source(seed, generator, rows)
        y = pathwise.sample(logits, key, ids, mask, math.prod(sample_shape))
        return self.extract(y.reshape(*sample_shape, *logits.shape))

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
        logits, mask = self.one_hot_logits()
        if value is not None:
            sample_shape = self._sample_shape_of(value, sample_shape)
            value = self.embed(value.to(logits.dtype)).reshape(math.prod(sample_shape), *logits.shape)
        key, ids = self._source(seed, generator, rows)
        y = pathwise.draw(rule or self.rule, logits, mask, key, ids, math.prod(sample_shape), value)
        return self.extract(y.reshape(*sample_shape, *logits.shape))

    def _source(self, seed: Any, generator: Any, rows: int | Tensor) -> tuple[Tensor, Tensor | None]:
        device = self.logits.device
        ids = prepare_rows(rows, self.batch_shape, device)
        return prepare_seed(seed, generator, device), ids  # the seed last: a refused call draws none

    def _sample_shape_of(self, value: Tensor, sample_shape: Sequence[int]) -> torch.Size:
        own = self.batch_shape + self.event_shape
        extra = value.dim() - len(own)
        if extra < 0 or value.shape[extra:] != own or (sample_shape and value.shape[:extra] != tuple(sample_shape)):
            raise ValueError(
                f"value must have the shape (*sample_shape, *batch, *event), which ends in {tuple(own)} here"
                f"{f' after {tuple(sample_shape)}' if sample_shape else ''}, got {tuple(value.shape)}"
            )
        return value.shape[:extra]

    def _check(self, value: Tensor) -> Tensor:
        """``value`` in the compute dtype, once its shape (and, where asked, its values) are seen to fit."""
        if self._validate_args:
            self._validate_sample(value)
        if self.event_shape and value.shape[-1:] != self.event_shape:
            raise ValueError(
                f"value must end in the event shape {tuple(self.event_shape)}, got shape {tuple(value.shape)}: "
                "an index becomes a one-hot by torch.nn.functional.one_hot(index, K)"
            )
        return value.to(compute_dtype(self.logits.dtype))
