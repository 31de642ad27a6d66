"""softdraw: draws discrete samples and keeps their gradient."""

from softdraw import losses, metrics, nn, schedules
from softdraw.functional import gumbel_max, gumbel_noise, gumbel_softmax, straight_through

__version__ = "0.1.0"
__all__ = ["gumbel_max", "gumbel_noise", "gumbel_softmax", "losses", "metrics", "nn", "schedules", "straight_through"]
