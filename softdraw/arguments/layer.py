"""The operands of a linear layer and its draw in one."""

from __future__ import annotations

import torch
from torch import Tensor

from softdraw.checks import check_device, check_floating
from softdraw.tensors import is_dtensor


def layer_dtype(x: Tensor) -> torch.dtype:
    """The dtype that a linear layer computes in: autocast leaves float64 as it is."""
    kind = x.device.type
    if x.dtype == torch.float64 or x.is_meta or not torch.is_autocast_enabled(kind):
        return x.dtype
    return torch.get_autocast_dtype(kind)


def check_layer(
    x: Tensor, weight: Tensor, bias: Tensor | None, codebook: Tensor | None, least: int = 1, plain: bool = False
) -> None:
    """The four fit each other, and there are as many categories; all of them plain tensors where they must be."""
    check_floating("x", x)
    if x.dim() == 0:
        raise ValueError("x must have a dimension of features, got a 0-d tensor: give it the shape (..., D)")
    check_floating("weight", weight)
    shapes = {"weight": (None, x.shape[-1]), "bias": weight.shape[:1], "codebook": (*weight.shape[:1], None)}
    for name, t in {"weight": weight, "bias": bias, "codebook": codebook}.items():
        if t is None:
            continue
        check_floating(name, t)
        check_device(name, t, x.device, "x")
        wanted = shapes[name]
        if t.dim() != len(wanted) or any(a not in (None, b) for a, b in zip(wanted, t.shape, strict=True)):
            shown = ", ".join("K" if n is None and name == "weight" else "V" if n is None else str(n) for n in wanted)
            raise ValueError(
                f"{name} must have the shape ({shown}{',' * (len(wanted) == 1)}) for x of shape {tuple(x.shape)} and "
                f"weight of shape {tuple(weight.shape)}, got {tuple(t.shape)}: give what a linear layer has"
            )
        if t.dtype != x.dtype and layer_dtype(x) == x.dtype:
            raise TypeError(f"{name} must have the dtype of x, {x.dtype}, got {t.dtype}: write {name}.to(x.dtype)")
    if len(weight) < least:
        raise ValueError(f"weight must have at least one category, got shape {tuple(weight.shape)}")
    _check_kinds({"x": x, "weight": weight, "bias": bias, "codebook": codebook}, plain)


def _check_kinds(given: dict[str, Tensor | None], plain: bool) -> None:
    """The parameters are DTensors all or none; x may be one beside them."""
    split = is_dtensor(given["weight"]) and not plain
    for name, t in given.items():
        if t is None or is_dtensor(t) is split or (name == "x" and split):
            continue
        if split:
            raise TypeError(
                f"{name} is a plain tensor and weight a DTensor: distribute it as the weight is, over its categories"
            )
        whole = "write .to_local()" if plain else f"write {name}.full_tensor(), or distribute the weight too"
        raise TypeError(f"{name} must be a plain tensor here, got a DTensor: {whole}")
