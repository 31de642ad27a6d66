"""The names of ``softdraw``, one a line and each written once. ``softdraw/__init__.py`` loads them when one is used.

``import X as X`` tells type checkers that X is public.
"""

from softdraw import conformance as conformance
from softdraw import distributed as distributed
from softdraw import integrations as integrations
from softdraw import losses as losses
from softdraw import metrics as metrics
from softdraw import nn as nn
from softdraw import schedules as schedules
from softdraw.diagnosis import diagnose as diagnose
from softdraw.functional import gumbel_max as gumbel_max
from softdraw.functional import gumbel_softmax as gumbel_softmax
from softdraw.functional import straight_through as straight_through
from softdraw.indices import IndexDraw as IndexDraw
from softdraw.indices import WeightedSampler as WeightedSampler
from softdraw.indices import draw_index as draw_index
from softdraw.indices import gumbel_topk as gumbel_topk
from softdraw.indices import multinomial as multinomial
from softdraw.keyed import fold_in as fold_in
from softdraw.keyed import gumbel_noise as gumbel_noise
from softdraw.keyed import noise_at as noise_at
from softdraw.keyed import uniform_at as uniform_at
from softdraw.laws import Bernoulli as Bernoulli
from softdraw.laws import OneHotCategorical as OneHotCategorical
from softdraw.laws import PlackettLuce as PlackettLuce
from softdraw.laws import RelaxedOneHotCategorical as RelaxedOneHotCategorical
from softdraw.laws import Subset as Subset
from softdraw.linear import LinearDraw as LinearDraw
from softdraw.linear import linear_draw as linear_draw
from softdraw.relaxations import SinkhornPlan as SinkhornPlan
from softdraw.relaxations import gumbel_sinkhorn as gumbel_sinkhorn
from softdraw.relaxations import neural_sort as neural_sort
from softdraw.relaxations import sinkhorn as sinkhorn
from softdraw.relaxations import soft_sort as soft_sort
from softdraw.relaxations import soft_topk as soft_topk
from softdraw.rules import IMLE as IMLE
from softdraw.rules import ZGR as ZGR
from softdraw.rules import DisARM as DisARM
from softdraw.rules import Exact as Exact
from softdraw.rules import GappedStraightThrough as GappedStraightThrough
from softdraw.rules import GumbelRao as GumbelRao
from softdraw.rules import GumbelSoftmax as GumbelSoftmax
from softdraw.rules import LeaveOneOut as LeaveOneOut
from softdraw.rules import MinimumVariance as MinimumVariance
from softdraw.rules import Rebar as Rebar
from softdraw.rules import Reinforce as Reinforce
from softdraw.rules import ReinMax as ReinMax
from softdraw.rules import ReinMaxRao as ReinMaxRao
from softdraw.rules import Relax as Relax
from softdraw.rules import RelaxedTopK as RelaxedTopK
from softdraw.rules import StraightThrough as StraightThrough
from softdraw.rules import StraightThroughGumbel as StraightThroughGumbel
from softdraw.rules import SumAndSample as SumAndSample
from softdraw.verbs import draw as draw
from softdraw.verbs import expect as expect
