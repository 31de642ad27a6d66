"""Thin modules over the functions, with the same names and arguments, that follow ``train()`` and ``eval()``."""

from softdraw.nn.chooser import Choice
from softdraw.nn.codebook import Codebook
from softdraw.nn.gate import Gate
from softdraw.nn.gumbel_softmax import GumbelSoftmax
from softdraw.nn.latent import Latent
from softdraw.nn.learned_tau import LearnedTau
from softdraw.nn.reseed import reseed
from softdraw.nn.router import Router

__all__ = ["Choice", "Codebook", "Gate", "GumbelSoftmax", "Latent", "LearnedTau", "Router", "reseed"]
