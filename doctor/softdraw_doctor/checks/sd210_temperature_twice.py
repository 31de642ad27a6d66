from __future__ import annotations

from collections.abc import Iterator

import libcst as cst

from softdraw_doctor.finding import Cannot, Check, Edits, Finding
from softdraw_doctor.operations import Program
from softdraw_doctor.rewrite import unwrapped
from softdraw_doctor.vocabulary import spellings


class TemperatureTwice(Check):
    """A temperature divides the logits and is given as tau too.

    gumbel_softmax divides by tau itself, the logits with their noise. Divided before as well, the logits alone are
    scaled: the index is drawn from softmax(logits / tau), another law. An annealed tau then takes the noise away: at
    0.1, a gap of 1 between two logits is one of 10 to the draw.

    Wrong:  F.gumbel_softmax(logits / tau, tau=tau)
    Right:  F.gumbel_softmax(logits, tau=tau), or softdraw.gumbel_softmax(logits, tau)

    The rewrite changes what is drawn, on purpose: it needs --unsafe-fixes. Off by default: --select SD210 turns it on.
    """

    code = "SD210"
    needs = (spellings("gumbel_softmax"),)
    default = False

    def run(self, source: Program) -> Iterator[Finding]:
        for draw in source.of("gumbel_softmax"):
            tau = draw.arguments.get("tau")
            if tau is None or draw.input is None or isinstance(tau.value, cst.BaseNumber):
                continue
            given = source.value(draw.input)
            if not (isinstance(given, cst.BinaryOperation) and isinstance(given.operator, cst.Divide)):
                continue
            if given.right.deep_equals(tau.value):
                inside = given is draw.input
                edits: Edits = unwrapped(source, given, given.left) if inside else Cannot("it is divided elsewhere")
                message = f"the logits are divided by {source.text_of(tau.value)}, which is tau too"
                yield self.found(source, draw.call, message, edits, unsafe=True)
