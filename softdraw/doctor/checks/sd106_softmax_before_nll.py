from __future__ import annotations

from collections.abc import Iterator

from softdraw.doctor.checks.logarithms import log_form
from softdraw.doctor.finding import Cannot, Check, Finding
from softdraw.doctor.operations import Program


class SoftmaxBeforeNLL(Check):
    """A softmax's output is fed to nll_loss, which wants log-probabilities.

    Nothing fails. The loss is minus the probability instead of minus its logarithm: negative, never below -1, and its
    gradient vanishes exactly where the model is confidently wrong.

    Wrong:  F.nll_loss(F.softmax(x, dim=1), y)
    Right:  F.nll_loss(F.log_softmax(x, dim=1), y), or F.cross_entropy(x, y), or softdraw.losses.categorical_nll(x, y)

    The rewrite changes what is computed, on purpose: it needs --unsafe-fixes.
    """

    code = "SD106"
    needs = ("nll_loss|NLLLoss", "[sS]oftmax")

    def run(self, source: Program) -> Iterator[Finding]:
        for loss in source.of("nll"):
            origin = source.origin(loss.input)
            if loss.input is not None and origin is not None and origin.operation.kind == "softmax":
                alone = not origin.names or all(len(source.reads(name)) == 1 for name in origin.names)
                edits = (
                    log_form(source, origin.operation)
                    if alone
                    else Cannot("the probabilities are used elsewhere too: take their logarithm with log_softmax")
                )
                message = "softmax before nll_loss, which wants log-probabilities: the loss is minus a probability"
                yield self.found(source, loss.call, message, edits, unsafe=True)
