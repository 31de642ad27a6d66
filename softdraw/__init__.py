"""softdraw: draws discrete samples and keeps their gradient."""

from softdraw import losses, metrics, nn, schedules
from softdraw.diagnosis import diagnose
from softdraw.draw import draw, expect
from softdraw.functional import gumbel_max, gumbel_noise, gumbel_softmax, straight_through
from softdraw.laws import Bernoulli, OneHotCategorical, RelaxedOneHotCategorical, Subset
from softdraw.relaxations import soft_topk
from softdraw.rules import (
    IMLE,
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
    RelaxedTopK,
    StraightThrough,
    StraightThroughGumbel,
    SumAndSample,
)

__version__ = "0.1.0"
__all__ = [
    "IMLE",
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
    "RelaxedTopK",
    "StraightThrough",
    "StraightThroughGumbel",
    "Subset",
    "SumAndSample",
    "diagnose",
    "draw",
    "expect",
    "gumbel_max",
    "gumbel_noise",
    "gumbel_softmax",
    "losses",
    "metrics",
    "nn",
    "schedules",
    "soft_topk",
    "straight_through",
]
