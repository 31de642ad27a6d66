"""Every check, one a file; a new one is its file and its line here."""

from softdraw_doctor.checks.sd101_sigmoid_into_bce import SigmoidIntoBCE
from softdraw_doctor.checks.sd102_bce_in_autocast import BCEInAutocast
from softdraw_doctor.checks.sd103_constructor_with_tensors import ConstructorWithTensors
from softdraw_doctor.checks.sd104_sigmoid_before_with_logits import SigmoidBeforeWithLogits
from softdraw_doctor.checks.sd105_softmax_before_cross_entropy import SoftmaxBeforeCrossEntropy
from softdraw_doctor.checks.sd106_softmax_before_nll import SoftmaxBeforeNLL
from softdraw_doctor.checks.sd107_cast_after_sigmoid import CastAfterSigmoid
from softdraw_doctor.checks.sd108_weight_for_pos_weight import WeightForPosWeight
from softdraw_doctor.checks.sd109_log_of_probability import LogOfProbability
from softdraw_doctor.checks.sd110_kl_div_arguments import KLDivArguments
from softdraw_doctor.checks.sd111_target_out_of_range import TargetOutOfRange
from softdraw_doctor.checks.sd201_probabilities_as_logits import ProbabilitiesAsLogits
from softdraw_doctor.checks.sd202_dim_as_eps import DimAsEps
from softdraw_doctor.checks.sd203_gumbel_in_eval import GumbelInEval
from softdraw_doctor.checks.sd204_gumbel_by_hand import GumbelByHand
from softdraw_doctor.checks.sd205_straight_through_order import StraightThroughOrder
from softdraw_doctor.checks.sd206_tau_compounds import TauCompounds
from softdraw_doctor.checks.sd207_race_by_hand import RaceByHand
from softdraw_doctor.checks.sd208_multinomial_of_softmax import MultinomialOfSoftmax
from softdraw_doctor.checks.sd209_multinomial_too_wide import MultinomialTooWide
from softdraw_doctor.checks.sd210_temperature_twice import TemperatureTwice
from softdraw_doctor.checks.sd211_seed_in_loop import SeedInLoop
from softdraw_doctor.checks.sd212_seed_by_rank import SeedByRank
from softdraw_doctor.checks.sd213_straight_through_data import StraightThroughData
from softdraw_doctor.finding import Check

CHECKS: tuple[Check, ...] = (
    SigmoidIntoBCE(),
    BCEInAutocast(),
    ConstructorWithTensors(),
    SigmoidBeforeWithLogits(),
    SoftmaxBeforeCrossEntropy(),
    SoftmaxBeforeNLL(),
    CastAfterSigmoid(),
    WeightForPosWeight(),
    LogOfProbability(),
    KLDivArguments(),
    TargetOutOfRange(),
    ProbabilitiesAsLogits(),
    DimAsEps(),
    GumbelInEval(),
    GumbelByHand(),
    StraightThroughOrder(),
    TauCompounds(),
    RaceByHand(),
    MultinomialOfSoftmax(),
    MultinomialTooWide(),
    TemperatureTwice(),
    SeedInLoop(),
    SeedByRank(),
    StraightThroughData(),
)
