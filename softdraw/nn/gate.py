"""Gates that open or close parts of a model: L0 regularisation, stochastic gates, feature gates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from softdraw.arguments import compute_dtype, prepare_mask, prepare_shape
from softdraw.checks import check_floating, given
from softdraw.laws import Bernoulli
from softdraw.nn.chooser import Choice, Chooser, check_ending, full_precision
from softdraw.nn.gates import LAWS
from softdraw.numerics import masked
from softdraw.rules.pathwise import Pathwise
from softdraw.rules.zgr import ZGR
from softdraw.seeds import keyed

GateName = Literal["hard-concrete", "bernoulli", "gaussian"]


class Gate(Chooser):
    r"""Multiplies by learned random gates, and says how many of them are expected to be open.

    .. math:: v = z \odot x, \qquad E\,\|z\|_0 = \sum_i P(z_i > 0)

    ``"hard-concrete"``: :math:`z = \min(1, \max(0, 1.2 s - 0.1))`, :math:`s = \sigma((\log u - \log(1 - u) + \theta) /
    \tfrac23)`. ``"gaussian"``: :math:`z = \min(1, \max(0, \theta + \epsilon / 2))`. Both are often exactly 0 or 1 and
    have a gradient of their own. ``"bernoulli"``: bits with the gradient of a rule.

    It draws in training, each sample of a batch its own gates, and decides in evaluation: :math:`\min(1, \max(0,
    1.2\,\sigma(\theta) - 0.1))`, the clipped theta, or the likelier bit. **Modules that get one seed draw the same
    noise**: give each ``seed=softdraw.fold_in(seed, "name")``.

    Args:
        shape: of what is gated, without the batch: an int or a tuple.
        law: one of the three.
        groups: int64 of that shape, from 0 on: elements with one number share a gate. Default: a gate each.
        rule: for bits, the gradient; default ``ZGR()``. A tau of it is a buffer, as in :class:`Codebook`.

    Returns:
        :class:`Choice`: ``value`` is x times the gates, or the gates themselves where no x is given; ``index`` says
        which are open, bool; ``law`` is the ``Bernoulli`` law of being open, one for each gate.

    Gradient:
        For ``theta``: exact for the drawn gates of the first two laws, that of the rule for bits. That of
        ``expected_l0`` is exact, without a draw.

    Raises:
        TypeError, ValueError: naming the argument, what it got and what is allowed.

    Example:
        >>> gate = softdraw.nn.Gate(4)
        >>> gate
        Gate(shape=(4,), law='hard-concrete')
        >>> gate(torch.ones(2, 4), seed=0).value
        tensor([[0.0260, 0.0119, 1.0000, 0.4792],
                [0.5328, 0.6312, 0.3788, 1.0000]], grad_fn=<...>)
        >>> gate.expected_l0()
        tensor(3.3273, grad_fn=<...>)
        >>> gate.eval()(torch.ones(4)).value
        tensor([0.5000, 0.5000, 0.5000, 0.5000], grad_fn=<...>)

    Source:
        Louizos, Welling and Kingma (2018), "Learning sparse neural networks through L0 regularization", eqs. 10 to 13;
        Yamada, Lindenbaum, Negahban and Kluger (2020), "Feature selection using stochastic gates", eqs. 4 and 5.
    """

    groups: Tensor | None

    def __init__(
        self,
        shape: int | Sequence[int],
        *,
        law: GateName = "hard-concrete",
        groups: Tensor | None = None,
        rule: Pathwise | None = None,
    ) -> None:
        super().__init__()
        sizes = (shape,) if type(shape) is int else shape
        self.shape = prepare_shape("shape", sizes)  # pyright: ignore[reportArgumentType] (which it checks)
        if not isinstance(law, str) or law not in LAWS:
            raise ValueError(f"law must be one of {', '.join(map(repr, get_args(GateName)))}, got {given(law)}")
        self.law: GateName = law
        if law == "bernoulli":
            self.set_rule(ZGR() if rule is None else rule, Bernoulli)
        elif rule is not None:
            raise TypeError(f"rule is for law='bernoulli', got {given(rule)} with law={law!r}: leave it out")
        gates, numbered = self.shape, None
        if groups is not None:
            self._numbers = _numbered(groups, self.shape).tolist()
            gates, numbered = (int(groups.max()) + 1,), torch.empty(self.shape, dtype=torch.int64)
        self.register_buffer("groups", numbered, persistent=False)
        self.gates = torch.Size(gates)
        self.theta = nn.Parameter(torch.empty(gates))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """All gates alike: even odds before stretching, a mean of a half, even bits; and tau at its start."""
        self.theta.fill_(LAWS[self.law].start)
        if self.groups is not None:  # memory without values after to_empty()
            self.groups.copy_(torch.tensor(self._numbers, device="cpu"))
        self.reset_tau()

    def expected_l0(self) -> Tensor:
        """How many elements are expected not to be multiplied by zero, 0-d in float32 (float64 for float64 gates)."""
        theta = self.theta
        theta = theta.to(compute_dtype(theta.dtype))
        return self._spread(torch.sigmoid(LAWS[self.law].open_logits(theta))).sum()

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
        """The gated ``x`` ``(..., *shape)``, or the gates.

        ``logits`` ``(..., *gates)`` take the place of the module's own theta, as where a network makes them. ``mask``
        (bool) broadcasts to the gates; where it is False they are closed. ``draw`` overrides ``training``. ``seed``,
        ``generator`` and ``rows`` are those of :func:`softdraw.draw`, with ids of gates ``(..., *gates)``, or of
        samples.
        """
        own = self.theta if logits is None else logits
        like = own if x is None else x
        check_floating("logits" if x is None and logits is not None else "x", like)
        with full_precision(like):
            theta, law = self._theta(x, own), LAWS[self.law]
            allowed = prepare_mask(mask, theta, max(theta.dim() - 1, 0))
            if self.draws(draw):
                key, ids = keyed(theta, theta.shape, seed, generator, rows)
                rule = self.rule_at(theta) if self.law == "bernoulli" else None
                z = law.draw(theta, rule, allowed, key, ids)  # pyright: ignore[reportArgumentType]
            else:
                z = law.decide(theta)
            open_law = Bernoulli(masked(law.open_logits(theta), allowed))
            z = z if allowed is None else z.masked_fill(~allowed, 0)
            spread = self._spread(z)
            value = spread if x is None else x * spread
        value = value if value.dtype == like.dtype else value.to(like.dtype)
        return Choice(value, spread > 0, open_law, open_law.theta)

    def _theta(self, x: Tensor | None, theta: Tensor) -> Tensor:
        """The parameters of every gate that is drawn, ``(*batch, *gates)``."""
        check_floating("logits", theta)
        gates, dtype = self.gates, compute_dtype(theta.dtype)
        if gates and theta.shape != gates:  # logits that were given, with a batch
            check_ending("logits", theta, gates)
        if x is None:
            return theta.to(dtype)
        if self.shape:
            check_ending("x", x, self.shape)
        if x.dtype != dtype:
            dtype = torch.promote_types(dtype, compute_dtype(x.dtype))
        theta = theta if theta.dtype == dtype else theta.to(dtype)
        return theta.expand(x.shape[: x.dim() - len(self.shape)] + gates)

    def _spread(self, z: Tensor) -> Tensor:
        """The gates at the shape of what they gate."""
        return z if self.groups is None else z[..., self.groups]

    def extra_repr(self) -> str:
        """What ``print(module)`` shows."""
        gates = [] if self.groups is None else [f"gates={self.theta.numel()}"]
        return self.shown(f"shape={self.shape}", f"law={self.law!r}", *gates)


def _numbered(groups: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The number of each element's gate, after a check."""
    if not isinstance(groups, Tensor) or groups.dtype != torch.int64:
        raise TypeError(f"groups must be an int64 tensor, got {given(groups)}: write torch.tensor([0, 0, 1])")
    if tuple(groups.shape) != tuple(shape) or not groups.numel():
        raise ValueError(f"groups must have the shape {tuple(shape)}, the number of a gate each, got {given(groups)}")
    if groups.is_meta:
        raise ValueError("groups is on meta, where it has no values, got a tensor of them: make it with device='cpu'")
    if int(groups.min()) < 0:
        raise ValueError(f"groups must be at least 0, got {int(groups.min())}: gates count from 0")
    return groups
