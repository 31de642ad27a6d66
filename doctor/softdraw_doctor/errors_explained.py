"""Errors that people paste and that no check of source code can see coming: what they mean and what to write."""

from __future__ import annotations

import inspect
from dataclasses import dataclass


@dataclass(frozen=True)
class Explained:
    """``symptoms`` are regular expressions for the message."""

    title: str
    symptoms: tuple[str, ...]
    text: str

    @property
    def explanation(self) -> str:
        return inspect.cleandoc(self.text)


ERRORS = (
    Explained(
        "Invalid logits or probs of a distribution",
        (r"Expected parameter (logits|probs) .*to satisfy the constraint", r"found invalid values:"),
        """
    A law of torch.distributions was given NaN, or probabilities that are negative or do not sum to 1. The law is where
    it is noticed, not where it began: in training nearly always an earlier step made the weights NaN.

    Find it:  torch.autograd.set_detect_anomaly(True), and assert x.isfinite().all() before the law
    Common:   log(0) or 0 / 0 in the loss (see SD109), a row with everything masked, a learning rate that is too high,
              float16 without a GradScaler, exp(logits) above 88

    Wrong:    Categorical(probs=p.clamp(min=0)), validate_args=False: the draw is then of another law, or NaN
    Right:    Categorical(logits=x), with the source of the NaN repaired. softdraw.OneHotCategorical(x, mask=mask) gives
              a row with everything masked the value 0 in place of NaN
    """,
    ),
    Explained(
        "probability tensor contains either inf, nan or element < 0",
        (
            r"probability tensor contains either",
            r"Assertion `?.*(isnan|val >= zero).*` failed.*[Mm]ultinomial",
        ),
        """
    torch.multinomial was given NaN, infinity or a negative number. In generation the logits are NaN or infinite before
    the softmax: float16 or bfloat16 weights that overflow, a temperature of 0 (x / 0 is infinite or NaN), a row in
    which
    top-p or a mask forbids every token (softmax of a row of -inf is NaN).

    Wrong:  torch.nan_to_num(probs): draws from another law, in silence
    Right:  check logits.isfinite() where the model returns them; take the argmax at temperature 0; keep one token in
            every row. softdraw.draw_index(logits / T) draws from logits, without a softmax
    """,
    ),
    Explained(
        "A target that is no class (a device-side assert on CUDA)",
        (
            r"Target -?\d+ is out of bounds",
            r"Assertion `?t >= 0 && t < n_classes",
            r"device-side assert triggered",
            r"Assertion `?(cur_target|target_val|idx_dim|index)\b",
        ),
        """
    A class index below 0 or not below the number of classes reached cross_entropy, nll_loss, gather or an embedding. On
    CUDA the message comes later, at an unrelated line, and the process must be started again.

    Find it:  CUDA_LAUNCH_BLOCKING=1, or run one batch on the CPU: there the message names the index
    Common:   labels 1 to K in place of 0 to K - 1; 255 or -1 for "ignore" without ignore_index=; one output too few;
              an assert of binary cross-entropy's input, which is no probability (see SD101) or NaN

    Right:    F.cross_entropy(x, y - 1), or F.cross_entropy(x, y, ignore_index=255)
    """,
    ),
    Explained(
        "A variable needed for gradient computation has been modified by an inplace operation",
        (r"modified by an inplace operation",),
        """
    A tensor that backward needs was changed between the forward pass and backward(). With Gumbel-softmax it is often
    the temperature: a tensor tau that tau.mul_(0.99), tau.fill_(...) or a scheduler's step() changes before backward().
    The version in the message that is one too high belongs to a tensor with one element.

    Wrong:  y = softmax(x / tau); tau.mul_(0.99); y.sum().backward()
    Right:  step the schedule after backward(), or write tau = tau * 0.99; softdraw.nn.GumbelSoftmax and
            softdraw.schedules.TauScheduler keep the tau of the forward pass
    Else:   x += 1, relu_(x), x[i] = ... on an activation: write the version that makes a new tensor
    """,
    ),
    Explained(
        "tau must be positive and finite",
        (r"tau must be positive and finite",),
        """
    A temperature of 0, below 0, infinite or NaN reached a draw of softdraw. Stock gumbel_softmax returns NaN or a
    reversed law there. A schedule that multiplies without a floor gets there (see SD206), and so does a tau that is
    learned as it is.

    Wrong:  tau *= 0.99;                              nn.Parameter(torch.tensor(1.0)) as tau
    Right:  softdraw.schedules.exponential(...), which ends where you say;   softdraw.nn.LearnedTau
    """,
    ),
    Explained(
        "gumbel_softmax() takes logits, tau and hard by position",
        (r"takes logits, tau and hard by position", r"`eps` parameter is deprecated and has no effect"),
        """
    torch's gumbel_softmax has eps as its fourth argument, which does nothing, and dim as its fifth. A dimension in the
    fourth place was never used there: softdraw refuses it (see SD202).

    Wrong:  gumbel_softmax(x, tau, True, 1)
    Right:  gumbel_softmax(x, tau, True, dim=1)
    """,
    ),
    Explained(
        "logits must be floating point",
        (r"logits must be floating point",),
        """
    A draw was given integers: nearly always class indices where scores belong.

    Wrong:  softdraw.gumbel_softmax(labels)
    Right:  softdraw.gumbel_softmax(model(x)); write logits.float() only if the integers are scores
    """,
    ),
)
