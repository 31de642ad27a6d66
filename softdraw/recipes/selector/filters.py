"""Features chosen by scikit-learn before any network is trained: the baselines."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor

from softdraw.errors import InputError
from softdraw.recipes.selector.data import NEEDED

_HALVINGS = 10  # of the interval of log10 C


def mutual_information(x: Tensor, y: Tensor, sizes: list[int]) -> list[Tensor]:
    """For each k, whether a feature is among the k with the most mutual information with the class, ``(n,)``."""
    try:
        from sklearn.feature_selection import mutual_info_classif
    except ModuleNotFoundError:
        raise InputError(f"the baseline of mutual information {NEEDED}") from None
    scores = torch.from_numpy(mutual_info_classif(x.numpy(), y.numpy(), random_state=0))
    return [_largest(scores, k) for k in sizes]


def l1(x: Tensor, y: Tensor, sizes: list[int]) -> list[Tensor]:
    """For each k, the k features that a linear classifier with an L1 penalty keeps, the penalty being as large as it
    can be: LinearSVC, one against the rest, C by bisection; a feature counts by its largest weight."""
    return [_largest(_weights(x.numpy(), y.numpy(), k), k) for k in sizes]


def _weights(x: np.ndarray, y: np.ndarray, k: int) -> Tensor:
    low, high, best = -4.0, 2.0, None
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        weights = _fitted(x, y, 10**middle)
        kept = int((weights > 0).sum())
        if kept < k:
            low = middle
            continue
        best, high = weights, middle
        if kept == k:
            break
    return _fitted(x, y, 10**high) if best is None else best


def _fitted(x: np.ndarray, y: np.ndarray, c: float) -> Tensor:
    from sklearn.svm import LinearSVC

    classifier: Any = LinearSVC  # whose stub knows no dual=False
    model = classifier(penalty="l1", dual=False, C=c, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it has not converged: weights that are 0 by then are 0
        model.fit(x, y)
    return torch.from_numpy(np.abs(model.coef_).max(0))


def _largest(scores: Tensor, k: int) -> Tensor:
    """The k largest; of equal ones, the first."""
    order = scores.argsort(descending=True, stable=True)
    return torch.zeros(scores.shape, dtype=torch.bool).scatter(0, order[:k], True)
