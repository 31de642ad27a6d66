from __future__ import annotations

from collections.abc import Iterator

from softdraw.doctor.checks.likelihood import logits_instead
from softdraw.doctor.finding import Check, Finding
from softdraw.doctor.operations import Program


class SoftmaxBeforeCrossEntropy(Check):
    """A softmax's output is fed to cross-entropy, which applies a second softmax.

    Nothing fails. The second softmax sees values in [0, 1] only, so for K = 3 the loss cannot fall below 0.551, and the
    gradient of a confident wrong row all but vanishes. (log_softmax before cross-entropy is harmless: applying it twice
    changes nothing.)

    Wrong:  F.cross_entropy(F.softmax(x, dim=-1), y)
    Right:  F.cross_entropy(x, y), or softdraw.losses.categorical_nll(x, y)

    The rewrite changes what is computed, on purpose: it needs --unsafe-fixes.
    """

    code = "SD105"
    needs = ("cross_entropy|CrossEntropyLoss", "[sS]oftmax")

    def run(self, source: Program) -> Iterator[Finding]:
        for loss in source.of("cross_entropy"):
            origin = source.origin(loss.input)
            if loss.input is not None and origin is not None and origin.operation.kind == "softmax":
                message = "softmax before cross-entropy, which applies its own: the loss has a floor (0.551 for K = 3)"
                edits = logits_instead(source, loss.input, origin)
                yield self.found(source, loss.call, message, edits, unsafe=True)
