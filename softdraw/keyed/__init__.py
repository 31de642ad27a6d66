"""What is a function of a seed alone: the noise itself, and seeds that are made from seeds."""

from softdraw.keyed.folding import fold_in
from softdraw.keyed.noise import gumbel_noise, noise_at, uniform_at

__all__ = ["fold_in", "gumbel_noise", "noise_at", "uniform_at"]
