"""Implicit maximum likelihood: the difference between two perturbed top-k choices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.compiler import is_compiling

from softdraw.checks import number
from softdraw.numerics import k_hot
from softdraw.rules.conditional_noise import Noise
from softdraw.rules.needs import Items, Need
from softdraw.rules.pathwise import Pathwise, check_drawn


@dataclass(frozen=True, eq=False)
class IMLE(Pathwise):
    r"""Perturb and take the top k; backward, the same with the logits moved against the gradient (I-MLE).

    .. math:: z = \mathrm{top}_k(\theta + \tau G), \qquad
              \hat g = \tfrac{1}{\lambda} \bigl(z - \mathrm{top}_k(\theta - \lambda g + \tau G)\bigr)

    with the same Gumbel noise G in both.

    The samples are **not** those of the law ``Subset``: with tau = 1 they are Plackett-Luce with its order dropped, and
    the gradient is that of this law. Use it to compare with published work; the other rules keep the law.

    Args:
        lam: lambda > 0, how far the logits are moved. The paper leaves the factor 1 / lambda out.
        tau: >= 0, the scale of the noise; 0 takes the top k without noise.

    Gradient:
        Biased: a finite difference of the mean, and only where f is linear of the right mean. Small lambda: less bias,
        most gradients 0 and a few of 1 / lambda.

    Raises:
        TypeError, ValueError: lam is no positive number; tau is negative; a sample is given (``value=``).
        NotImplementedError: forward mode (jvp), which no function has that is not linear in the gradient.

    Example:
        >>> logits = torch.zeros(4, requires_grad=True)
        >>> y = softdraw.draw(softdraw.Subset(logits, 2), softdraw.IMLE(lam=2.0), seed=0); y.detach()
        tensor([1., 0., 0., 1.])
        >>> (y * torch.tensor([0.0, 0.0, 0.0, 3.0])).sum().backward(); logits.grad
        tensor([ 0.0000,  0.0000, -0.5000,  0.5000])

    Source:
        Niepert, Minervini and Franceschi (2021), "Implicit MLE", algorithm 1; the factor 1 / lambda is that of
        Minervini, Franceschi and Niepert (2023), "Adaptive perturbation-based gradient estimation".
    """

    lam: float = 1.0
    tau: float = 1.0
    needs = Need.ITEMS

    def __post_init__(self) -> None:
        if not 0 < number("lam of IMLE", self.lam) < float("inf"):
            raise ValueError(f"lam of IMLE must be positive and finite, got {self.lam}: write 1.0")
        if not 0 <= number("tau of IMLE", self.tau) < float("inf"):
            raise ValueError(f"tau of IMLE must be finite and not negative, got {self.tau}: write 0.0 for no noise")

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]  (`needs` says that the law is one of items)
        self, law: Items, sample: Tensor, noise: Noise
    ) -> Tensor:
        check_drawn(self, noise)
        scores = law.theta + self.tau * noise.gumbel(law.theta)
        top = _TopK if is_compiling() else _TopKInEagerCode
        return top.apply(scores, law.k, self.lam)  # pyright: ignore[reportReturnType]


class _TopK(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(scores: Tensor, k: Any, lam: float) -> Tensor:
        return k_hot(scores, k)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        scores, ctx.k, ctx.lam = inputs
        ctx.save_for_backward(scores, output)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple:
        scores, z = ctx.saved_tensors
        return (z - k_hot(scores - ctx.lam * grad_outputs[0], ctx.k)) / ctx.lam, None, None


class _TopKInEagerCode(_TopK):
    """The same, which says why it has no forward mode: torch.compile takes no function with a ``jvp``."""

    @staticmethod
    def jvp(ctx: Any, *_: Any) -> Tensor:
        raise NotImplementedError(
            "IMLE has no forward mode (jvp, jacfwd): what it gives for a gradient is not linear in it, so no tangent "
            "corresponds to it. Take reverse mode (backward, torch.func.vjp), or another rule, such as ZGR()"
        )
