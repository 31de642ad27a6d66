from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from softdraw_doctor.checks.probabilities_into_loss import ProbabilitiesIntoLoss
from softdraw_doctor.finding import Cannot, Finding
from softdraw_doctor.operations import Program
from softdraw_doctor.vocabulary import spellings


class SoftmaxBeforeCrossEntropy(ProbabilitiesIntoLoss):
    """A softmax's or a sigmoid's output is fed to cross-entropy, which applies a softmax of its own.

    Nothing fails. The second softmax sees values in [0, 1] only, so for K = 3 the loss cannot fall below 0.551, and the
    gradient of a confident wrong row all but vanishes. (log_softmax before cross-entropy is harmless: applying it twice
    changes nothing.)

    Wrong:  F.cross_entropy(F.softmax(x, dim=-1), y)
    Right:  F.cross_entropy(x, y), or softdraw.losses.categorical_nll(x, y)

    The rewrite changes what is computed, on purpose: it needs --unsafe-fixes.
    """

    code = "SD105"
    loss = "cross_entropy"
    messages: ClassVar = {
        "softmax": "softmax before cross-entropy, which applies its own: the loss has a floor (0.551 for K = 3)",
        "sigmoid": "sigmoid before cross-entropy, which applies a softmax: the loss has a floor (0.551 for K = 3)",
    }
    needs = (spellings("cross_entropy", "log_softmax"), spellings("softmax", "sigmoid"))

    def run(self, source: Program) -> Iterator[Finding]:
        yield from super().run(source)
        for log in source.of("log_softmax"):
            origin = source.origin(log.input)
            if origin is not None and origin.operation.kind == "softmax":
                message = "softmax before log_softmax, which applies its own: the loss has a floor (0.551 for K = 3)"
                yield self.found(source, log.call, message, Cannot("remove the softmax, or write log for log_softmax"))
