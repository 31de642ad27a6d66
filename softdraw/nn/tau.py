"""tau as a buffer of a module: one float32 number that is saved, moved, scheduled and kept for the backward pass."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
import torch.fx
from torch import Tensor, nn

from softdraw.checks import given, scalar
from softdraw.tensors import is_plain


class WithTau(nn.Module):
    """A module that may have a tau: ``register_tau`` gives it one. A module without has no attribute of that name, so
    that a scheduler which looks for one passes over it."""

    if TYPE_CHECKING:  # a buffer that takes numbers: ``__setattr__`` below

        @property
        def tau(self) -> Tensor: ...
        @tau.setter
        def tau(self, value: float | Tensor) -> None: ...

    def register_tau(self, value: Any) -> None:
        """Make tau a buffer that holds ``value``, after a check of it."""
        self._reset_tau = positive_tau(value)
        self.register_buffer("tau", torch.empty((), dtype=torch.float32))
        self.reset_tau()

    @property
    def has_tau(self) -> bool:
        """Whether there is one."""
        return "tau" in self._buffers

    def reset_tau(self) -> None:
        """Set tau, if there is one, to the number last given to the constructor or as ``module.tau = number``."""
        if self.has_tau:
            self.tau.fill_(self._reset_tau)

    def shown_tau(self) -> str:
        """tau as ``print(module)`` shows it. One on an accelerator is not read, since that would wait for it."""
        return f"{self.tau:.6g}" if _readable(self.tau) else f"<on {self.tau.device}>"

    def __setattr__(self, name: str, value: Any) -> None:
        """``module.tau = 0.3`` writes into the buffer, so that compiled graphs and captured ones see it."""
        if name != "tau" or not self.has_tau:
            super().__setattr__(name, value)
        elif value is not self.tau:  # as after ``module.tau *= 0.5``
            self._reset_tau = positive_tau(value)
            self.reset_tau()

    def _apply(self, fn: Callable, recurse: bool = True) -> Any:
        """Moves tau as ``fn`` does, and keeps it float32: in bfloat16 a schedule of a thousand steps has only 129
        different values."""
        before = self._buffers.get("tau")
        super()._apply(fn, recurse)
        if before is None:
            return self
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
        saved = state_dict.get(key) if self.has_tau else None
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


def kept(tau: Tensor, logits: Tensor) -> float | Tensor:
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


def positive_tau(value: Any) -> float:
    """``value`` as a positive number that float32 can hold."""
    if isinstance(value, (nn.Module, nn.Parameter)) or (isinstance(value, Tensor) and value.requires_grad):
        raise TypeError(f"tau must be a number, got {given(value)}: pass a learned tau to the call, tau=...")
    logits = isinstance(value, Tensor) and value.dim() > 0
    tau = scalar("tau", value, "logits go to the call, as in GumbelSoftmax()(logits)" if logits else "write a float")
    if not 0 < tau < math.inf:
        raise ValueError(f"tau must be positive and finite, got {tau}: it relaxes the draw; small is close to one-hot")
    limits = torch.finfo(torch.float32)
    return min(max(tau, limits.tiny), limits.max)
