from __future__ import annotations

from softdraw_doctor.checks.sd101_sigmoid_into_bce import SigmoidIntoBCE


class CastAfterSigmoid(SigmoidIntoBCE):
    """A sigmoid's output is cast to float32 on its way into binary cross-entropy.

    The usual answer to "unsafe to autocast", and a wrong one: the sigmoid has already rounded to 0 or 1 in half
    precision. In float16, logit -20 with target 1 has gradient NaN, logit -12 has -inf, logit 12 with target 0 has NaN;
    in bfloat16 logit 12 with target 0 has gradient 0 in place of 1.

    Wrong:  F.binary_cross_entropy(torch.sigmoid(x).float(), y)
    Right:  F.binary_cross_entropy_with_logits(x.float(), y), or softdraw.losses.bernoulli_nll(x, y)
    """

    code = "SD107"
    symptoms = ()
    message = "a cast after the sigmoid does not undo its rounding: in half precision the gradient is NaN or 0"
    cast = True
