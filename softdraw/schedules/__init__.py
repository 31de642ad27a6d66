"""Schedules ``step -> value`` in closed form, and the scheduler that writes their value into modules."""

from softdraw.schedules.curves import Schedule, constant, cosine, exponential, linear, piecewise
from softdraw.schedules.tau_scheduler import TauScheduler

__all__ = ["Schedule", "TauScheduler", "constant", "cosine", "exponential", "linear", "piecewise"]
