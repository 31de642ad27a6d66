"""The draw as a module: it draws in training and decides in evaluation."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from softdraw.checks import check_bool, given, integer
from softdraw.functional import gumbel_softmax
from softdraw.keyed import fold_in
from softdraw.nn.tau import WithTau, kept
from softdraw.overrides import refuse_script

Mode = Literal["argmax", "softmax", "sample"]
_MODES = get_args(Mode)


class GumbelSoftmax(WithTau):
    r"""Draws in training, decides in evaluation: :func:`softdraw.gumbel_softmax` as a module.

    .. math:: y = \mathrm{softmax}((\theta + G) / \tau) \text{ in training}, \qquad
              y = \mathrm{onehot}(\arg\max_j \theta_j) \text{ in evaluation (``eval_mode="argmax"``)}

    **Two modules that get one seed draw the same noise**, unless each has a ``name`` of its own (see the example).
    Without ``seed=`` each call takes a fresh one by itself.

    Args:
        tau: the relaxation, > 0, one number. It is a float32 buffer without dimensions: it is saved with the model, it
            moves with it, it stays float32 in a model of another dtype, and a
            :class:`softdraw.schedules.TauScheduler` finds it. ``module.tau = 0.3`` changes it. For a learned one see
            :class:`LearnedTau`.
        hard: whether draws are exact one-hots (straight-through gradient) or relaxed.
        dim: the dimension of the categories.
        eval_mode: what happens after ``.eval()``: the one-hot of the argmax, ``softmax(logits / tau)``, or a draw as in
            training.
        name: folded into a given seed: the module then draws with ``fold_in(seed, name)``. The path of the module in
            its model is a good one. Default: the seed is taken as it is.

    Returns:
        As :func:`softdraw.gumbel_softmax`: shape and dtype of the logits.

    Gradient:
        As :func:`softdraw.gumbel_softmax`, at the tau of the forward pass: a scheduler may step before ``backward``.

    Raises:
        TypeError: an argument is not of its type. ValueError: ``tau`` is not positive and finite, or ``eval_mode`` is
        not one of the three, or ``name`` is empty.

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
        >>> choose.tau = 0.3
        >>> choose
        GumbelSoftmax(tau=0.3, hard=True, dim=-1, eval_mode='argmax')

        Two modules, reproducible and independent under one seed: a name for each.

        >>> first, second = softdraw.nn.GumbelSoftmax(name="encoder.0"), softdraw.nn.GumbelSoftmax(name="encoder.1")
        >>> first(torch.zeros(3), seed=1), second(torch.zeros(3), seed=1)
        (tensor([0.1422, 0.2746, 0.5833]), tensor([0.4568, 0.3315, 0.2117]))
    """

    name: str | None = None  # of a module that was pickled before there were names as well

    def __init__(
        self,
        tau: float = 1.0,
        hard: bool = False,
        dim: int = -1,
        eval_mode: Mode = "argmax",
        name: str | None = None,
    ) -> None:
        super().__init__()
        _check_name(name)
        self.name = name
        self.register_tau(tau)
        check_bool("hard", hard, "dim goes by keyword, dim=...")
        _check_mode("eval_mode", eval_mode)
        self.hard, self.dim = hard, integer("dim", dim, "it names the dimension of the categories")
        self.eval_mode: Mode = eval_mode

    def reset_parameters(self) -> None:
        """Set tau to the number that was last given, to the constructor or as ``module.tau = number``. What a scheduler
        wrote or a checkpoint held is forgotten."""
        self.reset_tau()

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
        Where nothing is drawn, ``seed``, ``generator`` and ``rows`` are not used, so a model may pass them in training
        and in evaluation alike.
        """
        if mode is None:
            mode = "sample" if self.training else self.eval_mode
        _check_mode("mode", mode)
        hard = self.hard if hard is None else hard
        check_bool("hard", hard, "dim goes by keyword, dim=...")
        relaxation = kept(self.tau, logits) if tau is None else tau
        if mode != "sample":  # torch's own operations where a graph is recorded, so that it needs no softdraw
            return gumbel_softmax(logits, relaxation, mode == "argmax", dim=self.dim, mask=mask, noise=False)
        if self.name is not None and seed is not None:
            seed = fold_in(seed, self.name)
        return gumbel_softmax(
            logits, relaxation, hard, dim=self.dim, mask=mask, seed=seed, generator=generator, rows=rows
        )

    def __prepare_scriptable__(self) -> None:
        refuse_script("softdraw.nn.GumbelSoftmax")

    def extra_repr(self) -> str:
        """What ``print(module)`` shows."""
        named = "" if self.name is None else f", name={self.name!r}"
        return f"tau={self.shown_tau()}, hard={self.hard}, dim={self.dim}, eval_mode={self.eval_mode!r}{named}"


def _check_name(name: object) -> None:
    if name is not None and not isinstance(name, str):
        raise TypeError(f"name must be a string or None, got {given(name)}: for example, write name='encoder.0'")
    if name == "":
        raise ValueError("name must not be empty, got '': write the path of the module in its model, or leave it out")


def _check_mode(name: str, mode: object) -> None:
    if mode not in _MODES:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, _MODES))}, got {mode!r}")
