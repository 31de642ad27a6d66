"""Discrete latents of a world model: one-hots from logits, with a share of the uniform law."""

from __future__ import annotations

import torch
from torch import Tensor

from softdraw.checks import count
from softdraw.laws import OneHotCategorical
from softdraw.laws.one_hot import uniform_share
from softdraw.nn.chooser import Choice, Chooser, full_precision
from softdraw.rules.fused import index_of
from softdraw.rules.pathwise import Pathwise
from softdraw.rules.straight_through import StraightThrough


class Latent(Chooser):
    r"""Draws several categorical variables as one-hots: the latents of Dreamer, for the posterior and for the prior.

    .. math:: z_i \sim (1 - u)\, \mathrm{softmax}(\theta_i) + u / K, \qquad \theta = W x + b

    It draws in training and takes the likeliest code in evaluation (Dreamer draws there too: ``draw=True``). **Modules
    that get one seed draw the same noise**: give each ``seed=softdraw.fold_in(seed, "name")``.

    Args:
        inputs: the width of x, for a linear layer of its own; None where every call gives ``logits=``.
        latents: the number of variables.
        codes: K, the codes of each.
        unimix: u, the share of the uniform law; it belongs to the law, so draws and divergences have it alike.
        rule: the gradient for the logits, a pathwise rule; a tau of it is a buffer, as in :class:`Codebook`.

    Returns:
        :class:`Choice`: ``value`` one-hots ``(..., latents, codes)``, ``index`` ``(..., latents)``, ``law`` an
        ``OneHotCategorical`` of batch ``(..., latents)``. :func:`softdraw.losses.balanced_kl` takes the laws of two.

    Gradient:
        That of the rule; none in evaluation.

    Raises:
        TypeError, ValueError: naming the argument, what it got and what is allowed.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> posterior, prior = (softdraw.nn.Latent(inputs=8, latents=3, codes=4) for _ in range(2))
        >>> state, observed = torch.randn(2, 8), torch.randn(2, 8)
        >>> after = posterior(observed, seed=softdraw.fold_in(0, "posterior"))
        >>> before = prior(state, seed=softdraw.fold_in(0, "prior"))
        >>> after.value.shape, after.index
        (torch.Size([2, 3, 4]), tensor([[2, 3, 0],
                [3, 1, 1]]))
        >>> softdraw.losses.balanced_kl(after.law, before.law, free=0.1)
        tensor(0.8852, grad_fn=<...>)

    Source:
        Hafner, Pasukonis, Ba and Lillicrap (2023), "Mastering diverse domains through world models".
    """

    def __init__(
        self,
        inputs: int | None,
        latents: int,
        codes: int,
        *,
        unimix: float = 0.01,
        rule: Pathwise = StraightThrough(),  # noqa: B008 (frozen)
    ) -> None:
        super().__init__()
        self.latents = count("latents", latents, 1, "it is the number of variables")
        self.codes = count("codes", codes, 1, "it is K, the codes of each latent")
        self.unimix = uniform_share("unimix", unimix)
        self.set_rule(rule, OneHotCategorical)
        self.make_layer(inputs, self.latents * self.codes)

    def reset_parameters(self) -> None:
        """The layer as torch's own, and tau at its start."""
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
        """The latents for ``x`` ``(..., inputs)``, or for logits ``(..., latents, codes)``; arguments as for
        :class:`Codebook`."""
        with full_precision(x if logits is None else logits):
            theta, dtype = self.parameters_of(x, logits, (self.latents, self.codes))
            law = OneHotCategorical(theta, mask, uniform=self.unimix)
            if self.draws(draw):
                y, index = law.draw_with_index(self.rule_at(theta), seed, generator, rows)
            else:
                y = law.mode
                index = index_of(y)
        return Choice(y if y.dtype == dtype else y.to(dtype), index, law, theta)

    def extra_repr(self) -> str:
        """What ``print(module)`` shows."""
        return self.shown(f"latents={self.latents}", f"codes={self.codes}", f"unimix={self.unimix:.6g}")
