"""Thin modules over the functions, with the same names and arguments, that follow ``train()`` and ``eval()``."""

from softdraw.nn.gumbel_softmax import GumbelSoftmax
from softdraw.nn.learned_tau import LearnedTau

__all__ = ["GumbelSoftmax", "LearnedTau"]
