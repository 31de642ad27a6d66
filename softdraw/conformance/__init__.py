"""Whether a sampler keeps the promises of this library's draws: the law, its tail, and noise keyed by ids alone."""

from softdraw.conformance.check import Report, Result, check

__all__ = ["Report", "Result", "check"]
