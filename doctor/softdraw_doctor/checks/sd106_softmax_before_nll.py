from __future__ import annotations

from softdraw_doctor.checks.likelihood import read_once
from softdraw_doctor.checks.logarithms import log_form
from softdraw_doctor.checks.probabilities_into_loss import ProbabilitiesIntoLoss
from softdraw_doctor.finding import Cannot, Edits
from softdraw_doctor.operations import Operation, Origin, Program


class SoftmaxBeforeNLL(ProbabilitiesIntoLoss):
    """A softmax's output is fed to nll_loss, which wants log-probabilities.

    Nothing fails. The loss is minus the probability instead of minus its logarithm: negative, never below -1, and its
    gradient vanishes exactly where the model is confidently wrong.

    Wrong:  F.nll_loss(F.softmax(x, dim=1), y)
    Right:  F.nll_loss(F.log_softmax(x, dim=1), y), or F.cross_entropy(x, y), or softdraw.losses.categorical_nll(x, y)

    The rewrite changes what is computed, on purpose: it needs --unsafe-fixes.
    """

    code = "SD106"
    loss = "nll"
    activation = "softmax"
    message = "softmax before nll_loss, which wants log-probabilities: the loss is minus a probability"

    def edits(self, source: Program, loss: Operation, origin: Origin) -> Edits:
        if not origin.forked and all(read_once(source, name) for name in origin.names):
            return log_form(source, origin.operation)
        return Cannot("the probabilities are used elsewhere too: take their logarithm with log_softmax")
