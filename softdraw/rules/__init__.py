"""The gradient rules, one a file: what gradient comes back through an exact draw, or from values of f alone."""

from softdraw.rules.disarm import DisARM
from softdraw.rules.exact import Exact
from softdraw.rules.gapped_straight_through import GappedStraightThrough
from softdraw.rules.gumbel_rao import GumbelRao
from softdraw.rules.gumbel_softmax import GumbelSoftmax
from softdraw.rules.imle import IMLE
from softdraw.rules.leave_one_out import LeaveOneOut
from softdraw.rules.minimum_variance import MinimumVariance
from softdraw.rules.rebar import Rebar
from softdraw.rules.reinforce import Reinforce
from softdraw.rules.reinmax import ReinMax
from softdraw.rules.reinmax_rao import ReinMaxRao
from softdraw.rules.relax import Relax
from softdraw.rules.relaxed_top_k import RelaxedTopK
from softdraw.rules.straight_through import StraightThrough
from softdraw.rules.straight_through_gumbel import StraightThroughGumbel
from softdraw.rules.sum_and_sample import SumAndSample
from softdraw.rules.zgr import ZGR

__all__ = [
    "IMLE",
    "ZGR",
    "DisARM",
    "Exact",
    "GappedStraightThrough",
    "GumbelRao",
    "GumbelSoftmax",
    "LeaveOneOut",
    "MinimumVariance",
    "Rebar",
    "ReinMax",
    "ReinMaxRao",
    "Reinforce",
    "Relax",
    "RelaxedTopK",
    "StraightThrough",
    "StraightThroughGumbel",
    "SumAndSample",
]
