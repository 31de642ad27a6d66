from __future__ import annotations

from softdraw_doctor.checks.probabilities_into_loss import ProbabilitiesIntoLoss


class SoftmaxBeforeCrossEntropy(ProbabilitiesIntoLoss):
    """A softmax's output is fed to cross-entropy, which applies a second softmax.

    Nothing fails. The second softmax sees values in [0, 1] only, so for K = 3 the loss cannot fall below 0.551, and the
    gradient of a confident wrong row all but vanishes. (log_softmax before cross-entropy is harmless: applying it twice
    changes nothing.)

    Wrong:  F.cross_entropy(F.softmax(x, dim=-1), y)
    Right:  F.cross_entropy(x, y), or softdraw.losses.categorical_nll(x, y)

    The rewrite changes what is computed, on purpose: it needs --unsafe-fixes.
    """

    code = "SD105"
    loss = "cross_entropy"
    activation = "softmax"
    message = "softmax before cross-entropy, which applies its own: the loss has a floor (0.551 for K = 3)"
