from __future__ import annotations

from softdraw_doctor.checks.probabilities_into_loss import ProbabilitiesIntoLoss


class SigmoidBeforeWithLogits(ProbabilitiesIntoLoss):
    """A sigmoid's output is fed to BCE-with-logits, which applies a second sigmoid.

    Nothing fails. The second sigmoid sees values in (0, 1) only, so its probabilities stay between 0.5 and 0.731: the
    loss cannot fall below 0.313 for positives and 0.693 for negatives, and the gradient vanishes where either is flat.

    Wrong:  F.binary_cross_entropy_with_logits(torch.sigmoid(x), y)
    Right:  F.binary_cross_entropy_with_logits(x, y)

    The rewrite changes what is computed, on purpose: it needs --unsafe-fixes.
    """

    code = "SD104"
    loss = "bce_logits"
    activation = "sigmoid"
    message = "sigmoid before BCE-with-logits, which applies its own: the loss cannot fall below 0.313"
