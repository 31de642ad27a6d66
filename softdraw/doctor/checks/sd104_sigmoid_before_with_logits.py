from __future__ import annotations

from collections.abc import Iterator

from softdraw.doctor.checks.likelihood import logits_instead
from softdraw.doctor.finding import Check, Finding
from softdraw.doctor.operations import Program


class SigmoidBeforeWithLogits(Check):
    """A sigmoid's output is fed to BCE-with-logits, which applies a second sigmoid.

    Nothing fails. The second sigmoid sees values in (0, 1) only, so its probabilities stay between 0.5 and 0.731: the
    loss cannot fall below 0.313 for positives and 0.693 for negatives, and the gradient vanishes where either is flat.

    Wrong:  F.binary_cross_entropy_with_logits(torch.sigmoid(x), y)
    Right:  F.binary_cross_entropy_with_logits(x, y)

    The rewrite changes what is computed, on purpose: it needs --unsafe-fixes.
    """

    code = "SD104"
    needs = ("binary_cross_entropy_with_logits|BCEWithLogitsLoss", "[sS]igmoid|expit")

    def run(self, source: Program) -> Iterator[Finding]:
        for loss in source.of("bce_logits"):
            origin = source.origin(loss.input)
            if loss.input is not None and origin is not None and origin.operation.kind == "sigmoid":
                message = "sigmoid before BCE-with-logits, which applies its own: the loss cannot fall below 0.313"
                edits = logits_instead(source, loss.input, origin)
                yield self.found(source, loss.call, message, edits, unsafe=True)
