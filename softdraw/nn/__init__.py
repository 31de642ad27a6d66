"""Thin modules over the functions: same names, same arguments, and a train/eval switch that is obeyed."""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from softdraw.functional import gumbel_softmax
from softdraw.overrides import refuse_script

__all__ = ["GumbelSoftmax", "LearnedTau"]

Mode = Literal["argmax", "softmax", "sample"]


class GumbelSoftmax(nn.Module):
    r"""Draws in training, decides in evaluation: :func:`softdraw.gumbel_softmax` as a module.

    .. math:: y = \mathrm{softmax}((\theta + G) / \tau) \text{ in training}, \qquad
              y = \mathrm{onehot}(\arg\max_j \theta_j) \text{ in evaluation (``eval_mode="argmax"``)}

    Args:
        tau: the relaxation, > 0; a buffer, so it is saved with the model and a
            :class:`softdraw.schedules.TauScheduler` finds it. For a learned one see :class:`LearnedTau`.
        hard: whether draws are exact one-hots (straight-through gradient) or relaxed.
        dim: the dimension of the categories.
        eval_mode: what happens after ``.eval()``: the one-hot of the argmax, ``softmax(logits / tau)``, or a draw as in
            training.

    Gradient:
        As :func:`softdraw.gumbel_softmax`.

    Raises:
        ValueError: ``tau`` is not positive and finite, or ``eval_mode`` is not one of the three.

    Example:
        >>> choose = softdraw.nn.GumbelSoftmax(tau=0.5, hard=True)
        >>> logits = torch.tensor([[1.0, 2.0, 3.0], [2.0, 1.0, 0.5]])
        >>> choose(logits, seed=1)
        tensor([[0., 0., 1.],
                [0., 1., 0.]])
        >>> choose.eval()(logits)
        tensor([[0., 0., 1.],
                [1., 0., 0.]])
        >>> choose(logits, mode="softmax")
        tensor([[0.0159, 0.1173, 0.8668],
                [0.8438, 0.1142, 0.0420]])
    """

    tau: Tensor

    def __init__(self, tau: float = 1.0, hard: bool = False, dim: int = -1, eval_mode: Mode = "argmax") -> None:
        super().__init__()
        if not isinstance(tau, (int, float)):
            raise TypeError(
                f"tau must be a number, got {type(tau).__name__}: pass what is learned to the call, tau=..."
            )
        if not 0 < tau < math.inf:
            raise ValueError(f"tau must be positive and finite, got {tau}")
        limits = torch.finfo(torch.float32)
        self.register_buffer("tau", torch.tensor(min(max(float(tau), limits.tiny), limits.max)))
        _check_mode("eval_mode", eval_mode)
        self.hard, self.dim = hard, dim
        self.eval_mode: Mode = eval_mode

    def forward(
        self,
        logits: Tensor,
        *,
        tau: float | Tensor | None = None,
        hard: bool | None = None,
        mode: Mode | None = None,
        mask: Tensor | None = None,
        seed: int | Tensor | None = None,
        generator: torch.Generator | None = None,
        rows: int | Tensor = 0,
    ) -> Tensor:
        """The draw or decision for ``logits``; what is given here overrides the module's own for this call.

        ``mode`` overrides both ``training`` and ``eval_mode``; the rest is as in :func:`softdraw.gumbel_softmax`.
        """
        if mode is None:
            mode = "sample" if self.training else self.eval_mode
        _check_mode("mode", mode)
        hard = self.hard if hard is None else hard
        return gumbel_softmax(
            logits,
            self.tau if tau is None else tau,
            mode == "argmax" or (mode == "sample" and hard),
            dim=self.dim,
            mask=mask,
            noise=mode == "sample",
            seed=seed,
            generator=generator,
            rows=rows,
        )

    def __prepare_scriptable__(self) -> None:
        refuse_script("softdraw.nn.GumbelSoftmax")

    def extra_repr(self) -> str:
        """What ``print(module)`` shows; tau itself is left to the state_dict, for reading it may wait for a device."""
        return f"hard={self.hard}, dim={self.dim}, eval_mode={self.eval_mode!r}"


def _check_mode(name: str, mode: object) -> None:
    if mode not in get_args(Mode):
        raise ValueError(f"{name} must be one of {', '.join(map(repr, get_args(Mode)))}, got {mode!r}")


class LearnedTau(nn.Module):
    r"""A temperature that is learned and stays above a floor.

    .. math:: \tau = \tau_{\min} + \log(1 + e^{w})

    Args:
        init: the value at the start, > ``floor``.
        floor: the limit from below, >= 0; gradients of soft draws grow like 1/tau, so keep it well above 0.

    Returns:
        ``forward()`` gives tau of shape ``(1,)`` (FSDP shards no 0-d parameter), to be passed as ``tau=``.

    Gradient:
        Exact for tau(w); what reaches tau is the gradient of the draw that it relaxes.

    Raises:
        ValueError: not ``init > floor >= 0``.

    Example:
        >>> tau = softdraw.nn.LearnedTau(init=1.0, floor=0.1)
        >>> tau()
        tensor([1.], grad_fn=<AddBackward0>)
        >>> y = softdraw.gumbel_softmax(torch.zeros(2, 3), tau(), seed=0)
        >>> y[0, 0].backward()
        >>> tau.weight.grad
        tensor([-0.1601])
    """

    def __init__(self, init: float = 1.0, floor: float = 0.1) -> None:
        super().__init__()
        if not math.inf > init > floor >= 0:
            raise ValueError(f"init and floor must be finite, init > floor >= 0, got init={init} and floor={floor}")
        above = init - floor
        inverse_softplus = above + math.log(-math.expm1(-above))  # log(e^x - 1), safe for large x
        self.floor = floor
        self.weight = nn.Parameter(torch.tensor([inverse_softplus]))

    def forward(self) -> Tensor:
        """The temperature, of shape ``(1,)``."""
        return self.floor + F.softplus(self.weight)

    def extra_repr(self) -> str:
        """What ``print(module)`` shows."""
        return f"floor={self.floor}"
