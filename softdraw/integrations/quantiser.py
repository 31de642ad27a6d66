"""The quantiser of wav2vec 2.0 in transformers, with our draws."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from softdraw.laws import OneHotCategorical
from softdraw.nn.chooser import Choice, Chooser, full_precision
from softdraw.nn.lookup import look_up, product
from softdraw.rules.fused import index_of
from softdraw.rules.pathwise import Pathwise
from softdraw.rules.straight_through_gumbel import StraightThroughGumbel


class GumbelVectorQuantizer(nn.Module):
    r"""Takes the place of ``Wav2Vec2GumbelVectorQuantizer`` of transformers, and of its copies in other models.

    .. math:: k_g \sim \mathrm{softmax}(\theta_g), \qquad \theta = W x + b, \qquad v = (e_{1, k_1}, \ldots, e_{G, k_G})

    It has the original's names: it loads its ``state_dict``, and evaluation gives the same numbers. In training it
    draws with our noise and looks the codes up, without a product with one-hots. Its tau is a buffer that is saved.
    ``temperature`` reads and writes tau, so that ``model.set_gumbel_temperature`` works. The layer computes in the
    dtype that it has or that autocast gives it, the draw in float32. For a new model see
    :class:`softdraw.nn.Codebook`.

    Args:
        config: with ``num_codevector_groups``, ``num_codevectors_per_group``, ``codevector_dim`` and ``conv_dim``, as
            ``Wav2Vec2Config`` has them.
        rule: the gradient for the logits, a pathwise rule. Default: the original's, ``StraightThroughGumbel(tau=2.0)``.

    Returns:
        Called with ``(hidden_states, mask_time_indices=None)``: ``(codevectors, perplexity)``, ``(B, T,
        codevector_dim)`` and a number, the sum over the groups, of the softmax in training and of the codes in
        evaluation, over the positions where the mask is True.

    Gradient:
        For the logits that of the rule, and through ``perplexity`` in training the exact one. For the codes exact.

    Raises:
        ValueError: ``codevector_dim`` is not a multiple of the groups. TypeError: ``rule`` is no pathwise rule.

    Example:
        >>> from types import SimpleNamespace
        >>> from softdraw.integrations.transformers import GumbelVectorQuantizer
        >>> config = SimpleNamespace(
        ...     num_codevector_groups=2, num_codevectors_per_group=8, codevector_dim=6, conv_dim=[4]
        ... )
        >>> quantizer = GumbelVectorQuantizer(config)
        >>> codevectors, perplexity = quantizer(torch.randn(3, 5, 4))
        >>> codevectors.shape, quantizer.temperature
        (torch.Size([3, 5, 6]), 2.0)
        >>> sorted(quantizer.state_dict())
        ['choose.tau', 'codevectors', 'weight_proj.bias', 'weight_proj.weight']

    Source:
        Baevski et al. (2020), "wav2vec 2.0: a framework for self-supervised learning of speech representations",
        section 2.
    """

    def __init__(self, config: Any, *, rule: Pathwise | None = None) -> None:
        super().__init__()
        self.num_groups, self.num_vars = config.num_codevector_groups, config.num_codevectors_per_group
        if config.codevector_dim % self.num_groups:
            raise ValueError(
                f"config.codevector_dim must be a multiple of num_codevector_groups={self.num_groups}, got "
                f"{config.codevector_dim}: each group gives a part of it"
            )
        width = config.codevector_dim // self.num_groups
        self.codevectors = nn.Parameter(torch.empty(1, self.num_groups * self.num_vars, width))
        self.weight_proj = nn.Linear(config.conv_dim[-1], self.num_groups * self.num_vars)
        self.choose = _Choose(StraightThroughGumbel(tau=2.0) if rule is None else rule)
        self.reset_parameters()

    @classmethod
    def from_original(cls, quantizer: nn.Module, *, rule: Pathwise | None = None) -> GumbelVectorQuantizer:
        """One with the parameters, the temperature, the dtype and the device of transformers' quantiser.

        ``model.quantizer = GumbelVectorQuantizer.from_original(model.quantizer)`` puts it in place. With ``rule`` the
        temperature is the rule's.
        """
        old: Any = quantizer
        config = SimpleNamespace(
            num_codevector_groups=old.num_groups,
            num_codevectors_per_group=old.num_vars,
            codevector_dim=old.num_groups * old.codevectors.shape[-1],
            conv_dim=[old.weight_proj.in_features],
        )
        new = cls(config, rule=rule).to(old.codevectors)
        new.load_state_dict(old.state_dict())
        if new.choose.has_tau and rule is None:
            new.temperature = old.temperature
        return new.train(old.training)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """As transformers initialises the original: a standard normal layer, uniform codes."""
        nn.init.normal_(self.weight_proj.weight)
        nn.init.zeros_(self.weight_proj.bias)
        nn.init.uniform_(self.codevectors)
        self.choose.reset_tau()

    @property
    def temperature(self) -> float:
        """tau, by transformers' name."""
        return float(self.choose.tau)

    @temperature.setter
    def temperature(self, value: float) -> None:
        self.choose.tau = value

    def forward(
        self,
        hidden_states: Tensor,
        mask_time_indices: Tensor | None = None,
        *,
        seed: int | Tensor | None = None,
        generator: torch.Generator | None = None,
        rows: int | Tensor = 0,
    ) -> tuple[Tensor, Tensor]:
        """The code vectors and the perplexity. ``seed``, ``generator`` and ``rows`` are those of
        :func:`softdraw.draw`, with ids of rows ``(B, T, groups)`` or of samples."""
        logits = self.weight_proj(hidden_states).unflatten(-1, (self.num_groups, self.num_vars))
        codebook = self.codevectors.view(self.num_groups, self.num_vars, -1)
        choice = self.choose(logits, codebook, seed=seed, generator=generator, rows=rows)
        if self.training:
            probs = choice.law.probs
        else:
            probs = nn.functional.one_hot(choice.index.clamp_min(0), self.num_vars).to(choice.value.dtype)
        return choice.value, _perplexity(probs.flatten(0, 1), mask_time_indices)


class _Choose(Chooser):
    """The codes for given logits and a given codebook, and the rule with its tau."""

    def __init__(self, rule: Pathwise) -> None:
        super().__init__()
        self.set_rule(rule, OneHotCategorical)

    def forward(self, logits: Tensor, codebook: Tensor, **source: Any) -> Choice:
        with full_precision(logits):
            theta, _ = self.parameters_of(None, logits, logits.shape[-2:])
            law, codes = OneHotCategorical(theta), codebook.to(theta.dtype)
            if self.training:
                rule = self.rule_at(theta)
                y, relaxed = law.rsample(rule=rule, **source), rule.relaxes
            else:
                y, relaxed = law.mode, False
            index = index_of(y.detach())
            value = product(y, codes) if relaxed else look_up(y, index, codes)
        dtype = torch.promote_types(logits.dtype, codebook.dtype)  # as of the original's product, with autocast too
        return Choice(value.flatten(-2).to(dtype), index, law, theta)

    def extra_repr(self) -> str:
        return self.shown()


def _perplexity(probs: Tensor, mask: Tensor | None) -> Tensor:
    """The sum over groups of exp(entropy) of the mean of ``(N, G, K)``, where the mask ``(B, T)`` is True."""
    if mask is None:
        mean = probs.mean(0)
    else:
        kept = mask.flatten()
        mean = torch.where(kept[:, None, None], probs, torch.zeros_like(probs)).sum(0) / kept.sum()
    return torch.exp(-torch.xlogy(mean, mean).sum(-1)).sum()
