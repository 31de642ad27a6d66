"""A quantiser: logits, a draw, and the code vector that was drawn."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from softdraw.arguments import compute_dtype
from softdraw.checks import check_bool, check_floating, count
from softdraw.laws import OneHotCategorical
from softdraw.linear import LinearDraw
from softdraw.nn.chooser import Choice, Chooser, check_ending, full_precision
from softdraw.nn.linear import drawn_in_groups
from softdraw.nn.lookup import look_up, product
from softdraw.rules.fused import index_of
from softdraw.rules.pathwise import Pathwise
from softdraw.rules.zgr import ZGR


class Codebook(Chooser):
    r"""Draws a code in every group and returns their vectors side by side: the quantiser of wav2vec 2.0 and of dVAEs.

    .. math:: k_g \sim \mathrm{softmax}(\theta_g), \qquad \theta = W x + b, \qquad
              v = (e_{1, k_1}, \ldots, e_{G, k_G})

    It draws in training and takes the likeliest code in evaluation. **Modules that get one seed draw the same noise**:
    give each ``seed=softdraw.fold_in(seed, "name")``. Without ``seed=`` each call takes a fresh one.

    Args:
        inputs: the width of x, for a linear layer of its own; None where every call gives ``logits=``.
        codes: K, the codes of a group.
        width: the width of the value; every group gives ``width / groups`` of it.
        groups: G, the number of codes drawn for a vector.
        rule: the gradient for the logits, a pathwise rule. If it has a tau, the module has it as a buffer that
            :class:`softdraw.schedules.TauScheduler` finds. The value of ``softdraw.GumbelSoftmax`` is relaxed.
        shared: whether the groups share one codebook.

    Returns:
        :class:`Choice`: ``value`` ``(..., width)``, ``index`` ``(..., groups)``, ``law`` an ``OneHotCategorical`` of
        batch ``(..., groups)``. The parameter ``codebook`` has the shape ``(groups or 1, codes, width / groups)``.

    Gradient:
        For the logits that of the rule at ``draw @ codebook``, for the codebook exact. In evaluation the codebook alone
        has one.

    Raises:
        TypeError, ValueError: naming the argument, what it got and what is allowed.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> quantise = softdraw.nn.Codebook(inputs=6, codes=8, width=4, groups=2, rule=softdraw.ReinMax(tau=1.1))
        >>> quantise
        Codebook(
          codes=8, width=4, groups=2, shared=False, rule=ReinMax(tau=1.1), tau=1.1
          (layer): LogitsLayer(in_features=6, out_features=16, bias=True)
        )
        >>> value, index, law, theta = quantise(torch.randn(5, 6), seed=0)
        >>> value.shape, index
        (torch.Size([5, 4]), tensor([[7, 3],
                [1, 5],
                [2, 3],
                [3, 1],
                [3, 3]]))
        >>> loss = softdraw.losses.diversity(theta, group_dim=-2)

    Source:
        Baevski et al. (2020), "wav2vec 2.0", section 3.2; van den Oord et al. (2017), "Neural discrete representation
        learning"; Ramesh et al. (2021), "Zero-shot text-to-image generation".
    """

    def __init__(
        self,
        inputs: int | None,
        codes: int,
        width: int,
        groups: int = 1,
        *,
        rule: Pathwise = ZGR(),  # noqa: B008 (frozen)
        shared: bool = False,
    ) -> None:
        super().__init__()
        self.codes = count("codes", codes, 1, "it is K, the codes of a group")
        self.groups = count("groups", groups, 1, "it is the number of codes drawn for a vector")
        self.width = count("width", width, 1, "it is the width of the value")
        if self.width % self.groups:
            raise ValueError(f"width must be a multiple of groups={self.groups}, got {width}: each gives a part of it")
        check_bool("shared", shared)
        self.shared = shared
        self.set_rule(rule, OneHotCategorical)
        self.make_layer(inputs, self.groups * self.codes)
        books = 1 if shared else self.groups
        self.codebook = nn.Parameter(torch.empty(books, self.codes, self.width // self.groups))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Standard normal codes, the layer as torch's own, and tau at its start."""
        nn.init.normal_(self.codebook)
        self.reset_tau()
        if self.layer is not None:
            self.layer.reset_parameters()

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
        """The codes for ``x`` ``(..., inputs)``, or for logits ``(..., groups, codes)``.

        ``mask`` (bool, True = allowed) broadcasts to the logits. ``draw`` overrides ``training``. ``seed``,
        ``generator`` and ``rows`` are those of :func:`softdraw.draw`, with ids of rows of ``(..., groups)``, or of
        samples.
        """
        with full_precision(x if logits is None else logits):
            theta, dtype = self.parameters_of(x, logits, (self.groups, self.codes))
            law, codebook = OneHotCategorical(theta, mask), self.codebook.to(theta.dtype)
            if self.draws(draw):
                rule = self.rule_at(theta)
                y, index = law.draw_with_index(rule, seed, generator, rows)
                relaxed = rule.relaxes
            else:
                y, relaxed = law.mode, False
                index = index_of(y)
            value = product(y, codebook) if relaxed else look_up(y, index, codebook)
        return Choice(value.flatten(-2).to(dtype), index, law, theta)

    def linear_draw(
        self,
        x: Tensor,
        *,
        mask: Tensor | None = None,
        seed: int | Tensor | None = None,
        generator: torch.Generator | None = None,
        rows: int | Tensor = 0,
    ) -> LinearDraw:
        """What ``forward`` draws, with log-probabilities ``(..., groups)`` in the place of a law: the logits are never
        all held (:func:`softdraw.linear_draw`, which says for which rules)."""
        if self.layer is None:
            raise TypeError("linear_draw is for a module with a layer, got inputs=None: call the module with logits=")
        check_floating("x", x)
        check_ending("x", x, (self.inputs,))
        with full_precision(x):
            wide = x.to(compute_dtype(x.dtype))
            draw = drawn_in_groups(
                *(wide, self.layer, self.codebook, self.groups, self.rule_at(wide), mask, (seed, generator, rows))
            )
        assert draw.value is not None
        return draw._replace(value=draw.value.flatten(-2).to(x.dtype))

    def extra_repr(self) -> str:
        """What ``print(module)`` shows."""
        return self.shown(
            f"codes={self.codes}", f"width={self.width}", f"groups={self.groups}", f"shared={self.shared}"
        )
