"""The draw as a module: it draws in training and decides in evaluation."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
import torch.fx
from torch import Tensor, nn

from softdraw.checks import check_bool, given, integer, scalar
from softdraw.functional import gumbel_softmax
from softdraw.keyed import fold_in
from softdraw.overrides import refuse_script
from softdraw.tensors import is_plain

Mode = Literal["argmax", "softmax", "sample"]
_MODES = get_args(Mode)


class GumbelSoftmax(nn.Module):
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

    if TYPE_CHECKING:  # a buffer that takes numbers: ``__setattr__`` below

        @property
        def tau(self) -> Tensor: ...
        @tau.setter
        def tau(self, value: float | Tensor) -> None: ...

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
        self._reset_tau = _tau(tau)
        self.register_buffer("tau", torch.empty((), dtype=torch.float32))
        self.reset_parameters()
        check_bool("hard", hard, "dim goes by keyword, dim=...")
        _check_mode("eval_mode", eval_mode)
        self.hard, self.dim = hard, integer("dim", dim, "it names the dimension of the categories")
        self.eval_mode: Mode = eval_mode

    def reset_parameters(self) -> None:
        """Set tau to the number that was last given, to the constructor or as ``module.tau = number``. What a scheduler
        wrote or a checkpoint held is forgotten."""
        self.tau.fill_(self._reset_tau)

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
        relaxation = _kept(self.tau, logits) if tau is None else tau
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
        """What ``print(module)`` shows. A tau on an accelerator is not read, since that would wait for the device."""
        shown = f"{self.tau:.6g}" if _readable(self.tau) else f"<on {self.tau.device}>"
        named = "" if self.name is None else f", name={self.name!r}"
        return f"tau={shown}, hard={self.hard}, dim={self.dim}, eval_mode={self.eval_mode!r}{named}"

    def __setattr__(self, name: str, value: Any) -> None:
        """``module.tau = 0.3`` writes into the buffer, so that compiled graphs and captured ones see it."""
        if name != "tau":
            super().__setattr__(name, value)
        elif value is not self.tau:  # as after ``module.tau *= 0.5``
            self._reset_tau = _tau(value)
            self.reset_parameters()

    def _apply(self, fn: Callable, recurse: bool = True) -> Any:
        """Moves tau as ``fn`` does, and keeps it float32: in bfloat16 a schedule of a thousand steps has only 129
        different values."""
        before = self.tau
        super()._apply(fn, recurse)
        if before.is_meta and not self.tau.is_meta:  # to_empty() gives memory without a value
            self._buffers["tau"] = torch.full_like(self.tau, self._reset_tau, dtype=torch.float32)
        elif self.tau.dtype != torch.float32:
            self._buffers["tau"] = before.to(self.tau.device)
        return self

    def _load_from_state_dict(
        self,
        state_dict: Mapping[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        """Takes tau from a checkpoint in any dtype, as one number. One from before the module was there has no tau, and
        the module keeps its own."""
        key = prefix + "tau"
        saved = state_dict.get(key)
        if isinstance(saved, Tensor) and saved.numel() == 1 and not saved.is_complex():
            saved = saved.detach().reshape(()).to(torch.float32, copy=True)
            state_dict = {**state_dict, key: saved}
            if local_metadata.get("assign_to_params_buffers", False):
                self._buffers["tau"] = saved
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )
        if key in missing_keys:
            missing_keys.remove(key)


def _kept(tau: Tensor, logits: Tensor) -> float | Tensor:
    """The tau of this pass, which a later write into the buffer does not reach: ``backward`` needs it."""
    if isinstance(logits, torch.fx.Proxy):  # a node of its own, for the traced graph to read the buffer in each pass
        return logits.tracer.create_proxy("call_method", "clone", (tau,), {})  # pyright: ignore[reportReturnType]
    if _readable(tau) and isinstance(logits, Tensor) and logits.is_cpu and is_plain(logits):
        return tau.item()  # no device to wait for, and a draw at a number takes half the time of one at a tensor
    # torch.jit.trace compares two traces, and makes the second one without gradients.
    recorded = torch.is_grad_enabled() or torch.jit.is_tracing()  # pyright: ignore[reportPrivateImportUsage]
    return tau.clone() if recorded else tau


def _readable(tau: Tensor) -> bool:
    """Whether the value is here to be read: torch.func.functional_call may have put a learned or mapped tau in place of
    the buffer."""
    return type(tau) is Tensor and tau.is_cpu and not tau.requires_grad and tau.dim() == 0


def _tau(value: Any) -> float:
    """``value`` as a positive number that float32 can hold."""
    if isinstance(value, (nn.Module, nn.Parameter)) or (isinstance(value, Tensor) and value.requires_grad):
        raise TypeError(f"tau must be a number, got {given(value)}: pass a learned tau to the call, tau=...")
    logits = isinstance(value, Tensor) and value.dim() > 0
    tau = scalar("tau", value, "logits go to the call, as in GumbelSoftmax()(logits)" if logits else "write a float")
    if not 0 < tau < math.inf:
        raise ValueError(f"tau must be positive and finite, got {tau}: it relaxes the draw; small is close to one-hot")
    limits = torch.finfo(torch.float32)
    return min(max(tau, limits.tiny), limits.max)


def _check_name(name: object) -> None:
    if name is not None and not isinstance(name, str):
        raise TypeError(f"name must be a string or None, got {given(name)}: for example, write name='encoder.0'")
    if name == "":
        raise ValueError("name must not be empty, got '': write the path of the module in its model, or leave it out")


def _check_mode(name: str, mode: object) -> None:
    if mode not in _MODES:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, _MODES))}, got {mode!r}")
