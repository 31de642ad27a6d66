"""The logits, tau, mask and flags of a draw: their checks, and the form that kernels take."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from softdraw.arguments.rows import ROW_MAX
from softdraw.checks import (
    DENSE,
    ORDINARY,
    check_bool,
    check_device,
    check_floating,
    check_mask,
    given,
    integer,
    number,
)
from softdraw.tensors import PLAIN, matched

Tau = Tensor | float
Fields = tuple[Tensor, Tau, Tensor | None, Tensor | None, Tensor | None, int]  # a Draw as a plain tuple
_TAU_LIMITS = [(torch.finfo(dtype).tiny, torch.finfo(dtype).max) for dtype in (torch.float32, torch.float64)]
_TAU_MIN, _TAU_MAX = _TAU_LIMITS[0]


class Draw(NamedTuple):
    """What a draw is made from, as operators and kernels take it: the canonical form of the arguments above."""

    logits: Tensor
    tau: Tau
    seed: Tensor | None  # None: no noise
    rows: Tensor | None = None  # None: 0, 1, 2, ...
    mask: Tensor | None = None
    col_start: int = 0  # the global index of the first category, for logits that are one block of wider ones


class KernelRule(NamedTuple):
    """A gradient rule as kernels take it: which formula of csrc/rules.h and csrc/rao.h, and its numbers."""

    name: str
    tau: Tau = 1.0
    gap: float = 0.0
    draws: int = 1  # of the noise

    @property
    def noisy(self) -> bool:
        """Whether the gradient needs noise, that of the draw or more of it."""
        return self.name in ("gumbel_rao", "reinmax_rao")


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype of noise, softmax and reductions: float64 for float64, else float32."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def call_error(misplaced: tuple, unknown: dict) -> TypeError:
    """The error for a call with a fourth positional argument or with a keyword that there is not."""
    if misplaced:
        return TypeError(
            f"gumbel_softmax() takes logits, tau and hard by position, got {misplaced[0]!r} as a fourth: write dim=... "
            "and the rest by keyword (torch's fourth positional argument is its unused eps, not dim)"
        )
    name = next(iter(unknown))
    way = "leave it out, for torch ignores its eps as well" if name == "eps" else "see help(softdraw.gumbel_softmax)"
    return TypeError(
        f"gumbel_softmax() takes logits, tau, hard, dim, mask, noise, seed, generator, rows and col_start, "
        f"got {name}={given(unknown[name])}: {way}"
    )


def check_flags(hard: object, noise: object, seed: object, generator: object, rows: object) -> None:
    """Checks that both flags are bools, and that without noise no argument asks for a certain noise."""
    check_bool("hard", hard, for_int="dim goes by keyword, dim=...")
    check_bool("noise", noise)
    if noise:
        return
    for name, key in (("seed", seed), ("generator", generator), ("rows", rows)):
        if key is not None and not (name == "rows" and type(key) is int and key == 0):
            raise ValueError(f"{name} keys the noise, and noise=False adds none, got {given(key)}: leave {name} out")


def check_logits(logits: Tensor, dim: int) -> int:
    """``logits`` is floating point and has categories in ``dim``; returns ``dim`` counted from the front."""
    return prepare_logits(logits, dim)[1]


def prepare_logits(logits: Tensor, dim: int) -> tuple[Tensor, int]:
    """The logits with the categories last, and ``dim`` counted from the front, after a check of both."""
    # By type, which is quicker than isinstance: a small draw takes microseconds.
    if type(logits) not in PLAIN or logits.dtype not in ORDINARY or logits.layout is not DENSE:
        check_floating("logits", logits)
    if type(dim) is not int:
        dim = integer("dim", dim, "the dimension of the categories")
    n = logits.dim()
    if not -n <= dim < n:
        raise _no_dim(logits, dim)
    try:
        categories = logits.shape[dim]  # not numel(): a batch may have a size that is known at run time only
    except RuntimeError:  # a nested tensor has no shape
        check_floating("logits", logits)
        raise
    if categories == 0:
        raise ValueError(f"logits must have at least one category, got shape {tuple(logits.shape)} with dim={dim}")
    if dim < 0:
        dim += n
    return (logits if dim == n - 1 else logits.movedim(dim, -1)), dim


def _no_dim(logits: Tensor, dim: int) -> Exception:
    n = logits.dim()
    if n == 0:
        return ValueError("logits must have a dimension of categories, got a 0-d tensor: give it the shape (..., K)")
    return IndexError(
        f"dim must be from {-n} to {n - 1} for logits of shape {tuple(logits.shape)}, got {dim}: "
        "it names the dimension of the categories"
    )


def prepare_shape(name: str, shape: Iterable[int], most: int = ROW_MAX) -> tuple[int, ...]:
    """Returns the shape that was given as ``name``, after a check that it has at most ``most`` elements."""
    if type(shape) is tuple and not shape:
        return shape  # the default takes no time
    try:
        if isinstance(shape, (str, bytes, dict, set)):
            raise TypeError
        sizes = tuple(integer(name, n, "") for n in shape)
    except TypeError:
        sizes = (-1,)
    if any(n < 0 for n in sizes):
        one = f": write ({shape},) for one dimension" if isinstance(shape, int) else ""
        raise TypeError(f"{name} must be a sequence of sizes >= 0, got {given(shape)}{one}")
    if math.prod(sizes) > most:
        raise ValueError(f"{name} must have at most {most} elements, got {sizes}")
    return sizes


def last(x: Tensor, dim: int) -> Tensor:
    """``x`` with dimension ``dim`` (>= 0) moved to the end: ``x`` itself where it is there already."""
    return x if dim == x.dim() - 1 else x.movedim(dim, -1)


def prepare_mask(mask: Tensor | None, logits: Tensor, dim: int, what: str = "logits") -> Tensor | None:
    """The mask at the shape of the logits (a view), categories last; ``what`` the call names them."""
    if mask is None:
        return None
    check_mask(mask, logits.device, "allowed", what)
    if not broadcasts(mask.shape, logits.shape):
        raise ValueError(
            f"mask of shape {tuple(mask.shape)} does not broadcast to {what} of shape {tuple(logits.shape)}: "
            f"each of its dimensions, counted from the last, must be 1 or the size of the {what}'"
        )
    return last(matched("mask", mask, logits, what).expand(logits.shape), dim)


def prepare_tau(tau: float | Tensor, logits: Tensor, dim: int) -> Tau:
    """``tau`` as a float, or as a tensor (categories last) that broadcasts to the logits, checked by the kernel."""
    if type(tau) is float and _TAU_MIN <= tau <= _TAU_MAX:
        return tau  # the common case first: a small draw takes microseconds
    if isinstance(tau, Tensor):
        return number_a_row("tau", tau, logits, dim)
    tau = number_tau("tau", tau)
    low, high = _TAU_LIMITS[logits.dtype == torch.float64]
    return min(max(float(tau), low), high)


def number_tau(name: str, tau: object) -> float:
    """Returns a tau that was given as a number under ``name``, after a check of its type and range."""
    tau = number(name, tau, "a float or a floating-point tensor")
    if not 0 < tau < math.inf:
        raise tau_error(tau, name)
    return tau


def tau_error(got: object, name: str = "tau") -> ValueError:
    """The error for a tau outside its range, in one text for every place that finds one."""
    return ValueError(
        f"{name} must be positive and finite, got {got}: "
        "end a schedule above 0, and learn a positive form, as softdraw.nn.LearnedTau has it"
    )


def tau_tensor(tau: float | Tensor, logits: Tensor, dim: int) -> Tensor:
    """``prepare_tau`` as a tensor in any case, in the compute dtype if it was a number."""
    t = prepare_tau(tau, logits, dim)
    return t if isinstance(t, Tensor) else number_tensor(t, logits)


def number_tensor(number: float, like: Tensor) -> Tensor:
    """A number as a 0-d tensor in the compute dtype of ``like``.

    It is a product because torch.compile keeps the number in a product as an input of the graph. The argument of
    ``torch.full`` becomes a constant of the graph, and every new value would compile another one.
    """
    return torch.ones((), dtype=compute_dtype(like.dtype), device=like.device) * number


def number_a_row(name: str, x: Tensor, logits: Tensor, dim: int) -> Tensor:
    """A tensor of one number, or of one for each row (categories last); its values are the kernel's to check."""
    check_floating(name, x)
    return a_row(name, x, logits, dim)


def a_row(name: str, x: Tensor, logits: Tensor, dim: int) -> Tensor:
    """``number_a_row`` for a dense tensor of any dtype."""
    if x.device != logits.device:
        if x.dim() > 0 or x.is_meta:
            check_device(name, x, logits.device)
        x = x.to(logits.device)
    x = matched(name, x, logits)
    if x.numel() == 1 and x.dim() <= logits.dim():
        return x.reshape(())
    per_row = [1 if i == dim else n for i, n in enumerate(logits.shape)]
    if not broadcasts(x.shape, per_row):
        raise ValueError(
            f"{name} of shape {tuple(x.shape)} does not fit logits of shape {tuple(logits.shape)} with categories in "
            f"dim={dim}: it may be one number, or one for each row, of shape {tuple(per_row)} "
            f"(write {name}.unsqueeze({dim}) if it lacks that dimension)"
        )
    return last(x.expand(per_row), dim)


def broadcasts(shape: torch.Size | Sequence[int], target: torch.Size | Sequence[int]) -> bool:
    """Whether a tensor of ``shape`` expands to ``target``."""
    if len(shape) > len(target):
        return False
    # Of one length for zip: torch.compile of torch 2.6 stops at reversed() iterators of two lengths.
    return all(a in (1, b) for a, b in zip(shape, target[len(target) - len(shape) :], strict=True))


def per_row(tau: float | Tensor, logits: Tensor) -> Tensor:
    """``tau`` as a tensor that broadcasts to ``logits`` (categories last), in its dtype."""
    if isinstance(tau, Tensor):  # a rule's, which has checked its type; in a backward pass Dynamo could not
        return a_row("tau", tau, logits, logits.dim() - 1).to(logits.dtype)
    return tau_tensor(tau, logits, logits.dim() - 1).to(logits.dtype)
