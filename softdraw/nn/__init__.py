"""Thin modules over the functions: the same names and arguments, and a train/eval switch that is obeyed."""

from softdraw.nn.gumbel_softmax import GumbelSoftmax
from softdraw.nn.learned_tau import LearnedTau

__all__ = ["GumbelSoftmax", "LearnedTau"]
