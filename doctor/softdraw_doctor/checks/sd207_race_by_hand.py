from __future__ import annotations

from collections.abc import Iterator

import libcst as cst

from softdraw_doctor.checks.noise import double, exponential, remedy
from softdraw_doctor.finding import Cannot, Check, Finding
from softdraw_doctor.glance import Glance
from softdraw_doctor.operations import Program
from softdraw_doctor.vocabulary import spellings

_DIVIDE = ("div", "div_", "true_divide", "divide", "divide_")


class RaceByHand(Check):
    """An exponential race written by hand: the index of the largest probs / exponential noise.

    It is the Gumbel-max draw in other words. The noise -log(u) of a float32 uniform is never below 6e-8 (2**-24), and
    neither is exponential_() on CUDA, so categories far below the others are drawn too seldom. In a step of masked
    diffusion that keeps 1,023 of 1,024 positions, with Zipf's law over 50,257 tokens, the entropy of a drawn token is
    5.3 nats where 7.6 are right. In probs / (1e-10 - log(u + 1e-10)) the eps is the floor. float64 is right, and
    takes twice the memory. exp(logits) overflows above 88.

    Wrong:  (logits.exp() / (-torch.log(torch.rand_like(logits))) ** T).argmax(-1)
            (probs / torch.empty_like(probs).exponential_()).argmax(-1)
    Right:  softdraw.gumbel_max(logits / T), or softdraw.draw_index(logits / T); with probs, of probs.log()

    It is not rewritten: another generator draws other numbers from the same seed.
    """

    code = "SD207"
    needs = (("exponential_", *spellings("rand", "uniform_"), "Uniform"),)

    def possible(self, glance: Glance) -> bool:
        """Exponential noise, or the logarithm of a uniform."""
        return "exponential_" in glance.names or (
            super().possible(glance) and bool(glance.names.intersection(spellings("log")))
        )

    def run(self, source: Program) -> Iterator[Finding]:
        for node, denominator in _divisions(source):
            noise, eps = exponential(source, denominator)
            if noise:
                edits = Cannot("another generator draws other numbers: use softdraw.gumbel_max(logits)")
                message = f"an exponential race by hand: {remedy(eps, double(source, node, denominator), noise)}"
                yield self.found(source, node, message, edits)


def _divisions(program: Program) -> Iterator[tuple[cst.CSTNode, cst.BaseExpression]]:
    """Every division by something, and by what; a literal numerator makes it a reciprocal and no race."""
    for node in program.nodes(cst.BinaryOperation):
        if isinstance(node.operator, cst.Divide) and not isinstance(node.left, cst.BaseNumber):
            yield node, node.right
    for call in program.nodes(cst.Call):
        if program.name(call.func) in ("torch.div", "torch.true_divide", "torch.divide") and len(call.args) > 1:
            yield call, call.args[1].value
        elif not isinstance(call.func, cst.Attribute) or program.name(call.func) is not None:
            continue
        elif call.func.attr.value in _DIVIDE and call.args:
            yield call, call.args[0].value
