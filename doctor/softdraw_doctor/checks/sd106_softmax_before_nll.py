from __future__ import annotations

from typing import ClassVar

import libcst as cst

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

    With reduction="none" it picks one probability of each row, as a focal loss does for 1 - p. The finding is then
    marked likely.

    The rewrite changes what is computed, on purpose: it needs --unsafe-fixes.
    """

    code = "SD106"
    loss = "nll"
    messages: ClassVar = {
        "softmax": "softmax before nll_loss, which wants log-probabilities: the loss is minus a probability",
    }

    def meant(self, source: Program, loss: Operation) -> bool:
        """Without a mean or a sum it may be a way to pick the probability of the target: ``1 + nll_loss(p, y)``."""
        arguments = [*loss.call.args, *(loss.constructor.args if loss.constructor is not None else ())]
        named = [a.value for a in arguments if a.keyword is not None and a.keyword.value == "reduction"]
        return any(isinstance(v, cst.SimpleString) and v.evaluated_value == "none" for v in named)

    def edits(self, source: Program, loss: Operation, origin: Origin) -> Edits:
        if not origin.forked and all(read_once(source, name) for name in origin.names):
            return log_form(source, origin.operation)
        return Cannot("the probabilities are used elsewhere too: take their logarithm with log_softmax")
