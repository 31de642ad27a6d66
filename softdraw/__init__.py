"""softdraw: draws discrete samples and keeps their gradient."""

from softdraw import conformance, losses, metrics, nn, schedules
from softdraw.diagnosis import diagnose
from softdraw.draw import draw, expect
from softdraw.functional import gumbel_max, gumbel_softmax, straight_through
from softdraw.keyed import fold_in, gumbel_noise, noise_at, uniform_at
from softdraw.laws import Bernoulli, OneHotCategorical, RelaxedOneHotCategorical
from softdraw.rules import (
    ZGR,
    DisARM,
    Exact,
    GappedStraightThrough,
    GumbelRao,
    GumbelSoftmax,
    LeaveOneOut,
    MinimumVariance,
    Rebar,
    Reinforce,
    ReinMax,
    ReinMaxRao,
    Relax,
    StraightThrough,
    StraightThroughGumbel,
    SumAndSample,
)

__version__ = "0.1.0"
__all__ = [
    "ZGR",
    "Bernoulli",
    "DisARM",
    "Exact",
    "GappedStraightThrough",
    "GumbelRao",
    "GumbelSoftmax",
    "LeaveOneOut",
    "MinimumVariance",
    "OneHotCategorical",
    "Rebar",
    "ReinMax",
    "ReinMaxRao",
    "Reinforce",
    "Relax",
    "RelaxedOneHotCategorical",
    "StraightThrough",
    "StraightThroughGumbel",
    "SumAndSample",
    "conformance",
    "diagnose",
    "draw",
    "expect",
    "fold_in",
    "gumbel_max",
    "gumbel_noise",
    "gumbel_softmax",
    "losses",
    "metrics",
    "nn",
    "noise_at",
    "schedules",
    "straight_through",
    "uniform_at",
]
