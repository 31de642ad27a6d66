from __future__ import annotations

from typing import ClassVar

from softdraw_doctor.checks.probabilities_into_loss import ProbabilitiesIntoLoss
from softdraw_doctor.finding import Cannot, Edits
from softdraw_doctor.operations import Operation, Origin, Program


class SigmoidBeforeWithLogits(ProbabilitiesIntoLoss):
    """A sigmoid's or a softmax's output is fed to BCE-with-logits, which applies a sigmoid of its own.

    Nothing fails. The second sigmoid sees values in (0, 1) only, so its probabilities stay between 0.5 and 0.731: the
    loss cannot fall below 0.313 for positives and 0.693 for negatives, and the gradient vanishes where either is flat.

    Wrong:  F.binary_cross_entropy_with_logits(torch.sigmoid(x), y)
    Right:  F.binary_cross_entropy_with_logits(x, y)

    The rewrite changes what is computed, on purpose: it needs --unsafe-fixes.
    """

    code = "SD104"
    loss = "bce_logits"
    messages: ClassVar = {
        "sigmoid": "sigmoid before BCE-with-logits, which applies its own: the loss cannot fall below 0.313",
        "softmax": "softmax before BCE-with-logits, which applies a sigmoid: the loss cannot fall below 0.313",
    }

    def edits(self, source: Program, loss: Operation, origin: Origin) -> Edits:
        if origin.operation.kind == "softmax":
            return Cannot("for one class of several, give the logits to cross_entropy; for several at once, to this")
        return super().edits(source, loss, origin)
