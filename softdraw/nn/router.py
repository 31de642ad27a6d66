"""A router: which k experts a token goes to, and with what weights."""

from __future__ import annotations

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from softdraw import numerics
from softdraw.checks import check_bool, count, given
from softdraw.indices import gumbel_topk
from softdraw.laws import Law, OneHotCategorical, PlackettLuce, Subset
from softdraw.nn.chooser import Choice, Chooser, LogitsLayer, full_precision
from softdraw.nn.noise import normal
from softdraw.operators.indices import topk
from softdraw.rules.pathwise import Pathwise
from softdraw.seeds import keyed
from softdraw.tensors import is_plain

RouterLaw = Literal["top-k", "plackett-luce", "subset"]


class Router(Chooser):
    r"""Chooses k of the experts for every token, and the weights of what they give.

    .. math:: \theta = W x + b, \qquad w = \mathrm{softmax}(\theta_{i_1}, \ldots, \theta_{i_k})

    - ``"top-k"``: the k largest of :math:`\theta + \epsilon\, \mathrm{softplus}(W' x)`, with standard normal noise and
      a scale that is learned (noisy top-k); without ``noise`` the k largest logits, as Switch and Mixtral have it.
    - ``"plackett-luce"``: k without replacement, one after the other, by :func:`softdraw.gumbel_topk`.
    - ``"subset"``: a set of k by its own law, :class:`softdraw.Subset`, in which the order of drawing has no part.

    It draws in training and takes the k largest logits in evaluation. **Modules that get one seed draw the same
    noise**: give each ``seed=softdraw.fold_in(seed, "name")``.

    Args:
        inputs: the width of x, for a linear layer of its own; None where every call gives ``logits=``.
        experts: E, how many there are.
        k: how many a token goes to.
        law: one of the three.
        noise: whether it draws at all. False: it decides in training too.
        normalize: whether weights are the softmax over the chosen, which sum to 1; False: their part of the softmax
            over all. Default: True for k > 1. With k = 1 it would be 1 whatever the logits, without a gradient.
        rule: for ``"subset"``, a pathwise rule such as ``ZGR()``: the choice itself then has a gradient, through the
            weights of the chosen. Default: none, as usual for routers.

    Returns:
        :class:`Choice`: ``value`` weights ``(..., k)``, ``index`` experts ``(..., k)``, by falling score (of a subset:
        by number); -1 with weight 0 where fewer are allowed. ``law`` is the ``Subset`` or the
        ``PlackettLuce`` of the orders of k, for ``"top-k"`` the ``OneHotCategorical`` of the softmax, and ``theta`` its
        logits, without the noise.

    Gradient:
        Through the weights, exact given the choice; with a rule also that of the choice.

    Raises:
        TypeError, ValueError: naming the argument, what it got and what is allowed.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> route = softdraw.nn.Router(inputs=6, experts=4, k=2, law="plackett-luce")
        >>> weights, index, law, logits = route(torch.randn(3, 6), seed=0)
        >>> index
        tensor([[0, 2],
                [3, 0],
                [1, 0]])
        >>> weights.sum(-1)
        tensor([1., 1., 1.], grad_fn=<...>)
        >>> loss = softdraw.losses.squared_cv(law.probs) + 1e-3 * softdraw.losses.router_z(logits)

    Source:
        Shazeer et al. (2017), "Outrageously large neural networks", eqs. 3 to 5; Fedus, Zoph and Shazeer (2022),
        "Switch transformers"; Kool, van Hoof and Welling (2019), "Stochastic beams and where to find them".
    """

    def __init__(
        self,
        inputs: int | None,
        experts: int,
        k: int,
        *,
        law: RouterLaw = "top-k",
        noise: bool = True,
        normalize: bool | None = None,
        rule: Pathwise | None = None,
    ) -> None:
        super().__init__()
        self.experts = count("experts", experts, 1, "it is E, how many there are")
        self.k = count("k", k, 1, "it is how many experts a token goes to")
        if self.k > self.experts:
            raise ValueError(f"k must be at most experts={self.experts}, got {k}: a token goes to different experts")
        if not isinstance(law, str) or law not in get_args(RouterLaw):
            raise ValueError(f"law must be one of {', '.join(map(repr, get_args(RouterLaw)))}, got {given(law)}")
        check_bool("noise", noise)
        if normalize is not None:
            check_bool("normalize", normalize)
        self.law: RouterLaw = law
        self.noise, self.normalize = noise, self.k > 1 if normalize is None else normalize
        self.rule = None
        if rule is not None:
            if law != "subset":
                raise TypeError(f"rule is for law='subset', got {given(rule)} with law={law!r}: leave it out")
            self.set_rule(rule, Subset)
        self.make_layer(inputs, self.experts)
        scaled = law == "top-k" and noise
        if scaled and inputs is None:
            raise TypeError(
                "inputs must be given for noisy top-k, whose scale is learned from x, got None: noise=False"
            )
        self.scale = LogitsLayer(inputs, self.experts, bias=False) if scaled else None  # pyright: ignore
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """The layer as torch's own, a scale of the noise that is alike everywhere, and tau at its start."""
        self.reset_tau()
        if self.layer is not None:
            self.layer.reset_parameters()
        if self.scale is not None:
            nn.init.zeros_(self.scale.weight)

    def forward(
        self,
        x: Tensor | None = None,
        *,
        logits: Tensor | None = None,
        mask: Tensor | None = None,
        draw: bool | None = None,
        seed: int | Tensor | None = None,
        generator: torch.Generator | None = None,
        rows: int | Tensor = 0,
    ) -> Choice:
        """The experts for ``x`` ``(..., inputs)``, or for logits ``(..., experts)``.

        ``mask`` (bool, True = allowed) broadcasts to the logits. ``draw`` overrides ``training``. ``seed``,
        ``generator`` and ``rows`` are those of :func:`softdraw.draw`, with ids of tokens or of samples.
        """
        source = {"seed": seed, "generator": generator, "rows": rows}
        with full_precision(x if logits is None else logits):
            theta, dtype = self.parameters_of(x, logits, (self.experts,))
            draws = self.noise and self.draws(draw)
            law = self._law(theta, mask)
            if isinstance(law, Subset):
                index, weights = self._of_subset(law, draws, source)
            else:
                index, scores = self._of_order(law, x, draws, source)
                weights = self._weights(scores, law, index)
        return Choice(weights.to(dtype), index, law, theta)

    def _law(self, theta: Tensor, mask: Tensor | None) -> Law:
        """What is drawn from; noisy top-k has no closed form, so its law is that of one expert by the softmax."""
        if self.law == "top-k":
            return OneHotCategorical(theta, mask)
        return (Subset if self.law == "subset" else PlackettLuce)(theta, self.k, mask)

    def _of_order(self, law: Law, x: Tensor | None, draws: bool, source: dict) -> tuple[Tensor, Tensor]:
        """The k best by score, and the scores that weigh them."""
        scores = law.theta
        if draws and self.law == "plackett-luce":
            return gumbel_topk(scores, self.k, mask=law.allowed, **source), scores
        if draws:
            if self.scale is None or x is None:
                raise TypeError(
                    "x must be given to noisy top-k, got logits=: its noise has a scale that is learned from x"
                )
            noise = normal(scores, *keyed(scores, scores.shape[:-1], **source))
            scores = scores + noise * F.softplus(self.scale(x).to(scores.dtype))
        if is_plain(scores):  # checked by now
            at = topk.seeded(None, None, scores.detach(), None, law.allowed, 0.0, 1, 0, self.k)
            return at.squeeze(0), scores
        return gumbel_topk(scores, self.k, temperature=0, mask=law.allowed), scores

    def _of_subset(self, law: Subset, draws: bool, source: dict) -> tuple[Tensor, Tensor]:
        """The items of a set, and their weights, which carry the gradient of the choice where there is a rule."""
        if not draws:
            z = law.mode
        elif self.rule is None:
            z = law.sample(**source)
        else:
            z = law.rsample(rule=self.rule_at(law.theta), **source)
        index = law.index_of(z.detach())
        weights = self._weights(law.theta, law, index)
        return index, weights * z.gather(-1, index.clamp_min(0)) if z.requires_grad else weights

    def _weights(self, scores: Tensor, law: Law, index: Tensor) -> Tensor:
        """The softmax over the chosen, or their part of that over all; 0 where the index is -1."""
        if self.normalize and numerics.readable(index) and bool((index >= 0).all()):
            return scores.gather(-1, index).softmax(-1)  # finite: a row with another largest score has no index
        if self.normalize:
            chosen = scores.gather(-1, index.clamp_min(0)).masked_fill(index < 0, -torch.inf)
            return numerics.softmax(chosen)
        p = numerics.softmax(numerics.masked(scores, law.allowed))
        return p.gather(-1, index.clamp_min(0)).masked_fill(index < 0, 0)

    def extra_repr(self) -> str:
        """What ``print(module)`` shows."""
        return self.shown(
            *(f"experts={self.experts}", f"k={self.k}", f"law={self.law!r}"),
            *(f"noise={self.noise}", f"normalize={self.normalize}"),
        )
