from __future__ import annotations

from collections.abc import Iterator

import libcst as cst

from softdraw_doctor.checks.likelihood import logits_instead, with_logits
from softdraw_doctor.finding import Cannot, Check, Edits, Finding
from softdraw_doctor.operations import Operation, Program
from softdraw_doctor.rewrite import joined
from softdraw_doctor.vocabulary import AUTOCAST, spellings


class BCEInAutocast(Check):
    """Binary cross-entropy of probabilities inside an autocast region.

    Which devices raise: CUDA and XPU do, in float16 and in bfloat16 ("torch.nn.functional.binary_cross_entropy and
    torch.nn.BCELoss are unsafe to autocast"). The CPU casts to float32 and MPS computes in low precision, so both lose
    the probability in silence, and no test on a CPU meets the error.

    Three repairs silence the error and keep the rounded probability. With logit -20 and target 1, whose gradient is -1,
    in float16:

    Wrong:  with torch.autocast("cuda", enabled=False): F.binary_cross_entropy(p, y)         gradient NaN
    Wrong:  F.binary_cross_entropy(p.float(), y) outside of the region                       gradient NaN
    Wrong:  F.binary_cross_entropy(p.float().clamp(1e-7, 1 - 1e-7), y) outside               gradient 0
    Right:  with torch.autocast("cuda"): loss = F.binary_cross_entropy_with_logits(model(x), y)
            or softdraw.losses.bernoulli_nll(model(x), y), which computes in float32 on every device

    What else changes when the sigmoid leaves the model: whatever reads its output. Evaluation, thresholds, metrics and
    exported models then get logits: write torch.sigmoid(model(x)), or compare with 0 in place of 0.5. A checkpoint
    stays valid, because a sigmoid has no weights.
    """

    code = "SD102"
    needs = (spellings("bce"), ("autocast",))
    symptoms = (r"unsafe to autocast", r"autocast.*binary_cross_entropy")

    def run(self, source: Program) -> Iterator[Finding]:
        for loss in source.of("bce"):
            known = in_autocast(source, loss.call)
            if known is None:
                continue
            message = "binary cross-entropy of probabilities inside autocast: an error on CUDA, low precision on MPS"
            yield self.found(source, loss.call, message, _edits(source, loss), likely=not known)


def _edits(program: Program, loss: Operation) -> Edits:
    origin = program.origin(loss.input)
    if loss.input is None or origin is None or origin.operation.kind != "sigmoid":
        return Cannot("where the probabilities come from is not known: give the logits to BCE-with-logits")
    return joined(with_logits(program, loss), logits_instead(program, loss.input, origin))


def in_autocast(program: Program, node: cst.CSTNode) -> bool | None:
    """True inside a region that is on for an accelerator, False where that is not certain, None outside."""
    for above in program.ancestors(node):
        contexts: list[cst.BaseExpression] = []
        if isinstance(above, cst.With):
            contexts = [item.item for item in above.items]
        elif isinstance(above, cst.FunctionDef):
            contexts = [decorator.decorator for decorator in above.decorators]
        for context in reversed(contexts):
            context = program.value(context)
            func = context.func if isinstance(context, cst.Call) else context
            if program.name(func) in AUTOCAST:
                return _is_on(program, context)
        if isinstance(above, (cst.FunctionDef, cst.Lambda)):
            return None
    return None


def _is_on(program: Program, context: cst.BaseExpression) -> bool | None:
    """Whether one ``autocast(...)`` is enabled: True, False for perhaps, None for no (or for the CPU)."""
    known = True
    for i, arg in enumerate(context.args if isinstance(context, cst.Call) else ()):
        if arg.star:
            return False
        name = arg.keyword.value if arg.keyword else "first" if i == 0 else ""
        if name in ("first", "device_type") and isinstance(arg.value, cst.SimpleString):
            if arg.value.evaluated_value == "cpu":
                return None
        elif name in ("enabled", "first") and isinstance(arg.value, cst.Name):
            if _is_off(program, arg.value):
                return None
            known = known and (arg.value.value == "True" or name == "first")
        elif name == "enabled":
            known = False
    return known


def _is_off(program: Program, value: cst.Name) -> bool:
    """``False``, or a parameter that is False unless a caller asks."""
    defaults = [a.node.default for a in program.assignments(value) if isinstance(a.node, cst.Param)]
    return any(isinstance(d, cst.Name) and d.value == "False" for d in (value, *defaults))
