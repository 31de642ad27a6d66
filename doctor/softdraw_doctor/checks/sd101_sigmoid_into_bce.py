from __future__ import annotations

from collections.abc import Iterator

import libcst as cst

from softdraw_doctor.checks.likelihood import logits_instead, with_logits
from softdraw_doctor.finding import Cannot, Check, Finding
from softdraw_doctor.operations import Operation, Program
from softdraw_doctor.rewrite import joined
from softdraw_doctor.vocabulary import spellings


class SigmoidIntoBCE(Check):
    """A sigmoid's output is fed to binary cross-entropy.

    A probability near 1 cannot be told from 1 in float32 above a logit of 17, and the loss clips its logarithm at -100:
    with target 1 and logit -50 the gradient is -1.9e-10 where the true one is -1. Under CUDA autocast the call raises
    ("unsafe to autocast"); in float16 and bfloat16 the gradient is NaN, -inf or 0 from |logit| = 12 on.

    Wrong:  F.binary_cross_entropy(torch.sigmoid(x), y)
    Right:  F.binary_cross_entropy_with_logits(x, y), or softdraw.losses.bernoulli_nll(x, y)

    Remove a sigmoid at the end of a model (a Sequential, a forward), and apply it where probabilities are read.
    The product of two sigmoids is the probability of no single logit: add their logarithms,
    logp = logsigmoid(a) + logsigmoid(b), and use -(y * logp + (1 - y) * torch.log(-torch.expm1(logp))).
    """

    code = "SD101"
    needs = (spellings("bce"), spellings("sigmoid"))
    symptoms = (
        r"all elements of input should be between 0 and 1",
        r"input_val >= zero && input_val <= one",
        r"Found dtype (Long|Bool|Double|Half) but expected Float",
    )
    message = "sigmoid into binary cross-entropy: wrong gradients at large logits, an error under CUDA autocast"
    cast = False  # SD107 is this check where the sigmoid's output is cast

    def run(self, source: Program) -> Iterator[Finding]:
        for loss in source.of("bce"):
            origin = source.origin(loss.input)
            if loss.input is None:
                continue
            if origin is not None and origin.operation.kind == "sigmoid":
                if bool(origin.casts) is self.cast:
                    edits = joined(with_logits(source, loss), logits_instead(source, loss.input, origin))
                    yield self.found(source, loss.call, self.message, edits)
            elif not self.cast and is_product(source, loss.input):
                edits = Cannot("a product of two sigmoids has no single logit: add logsigmoids")
                yield self.found(source, loss.call, "a product of two sigmoids into binary cross-entropy", edits)


def is_product(program: Program, expression: cst.BaseExpression) -> bool:
    """sigmoid(a) * sigmoid(b), or its square root."""
    value = program.value(expression)
    operation = program.operation(value)
    if isinstance(operation, Operation) and operation.kind == "sqrt" and operation.input is not None:
        value = program.value(operation.input)
    if not (isinstance(value, cst.BinaryOperation) and isinstance(value.operator, cst.Multiply)):
        return False
    sides = (program.origin(value.left), program.origin(value.right))
    return all(side is not None and side.operation.kind == "sigmoid" for side in sides)
