from __future__ import annotations

from collections.abc import Iterator

import libcst as cst

from softdraw_doctor.finding import Check, Finding
from softdraw_doctor.operations import Program
from softdraw_doctor.vocabulary import spellings


class GumbelInEval(Check):
    """A module draws Gumbel noise whether it trains or not. Advice, off by default: --select SD203 turns it on.

    F.gumbel_softmax knows nothing of model.eval(): evaluation stays random, and its numbers change from run to run.
    Four well-known projects shipped that. If the draw is meant in evaluation too, say so with a comment and noqa.

    Wrong:  def forward(self, x): return F.gumbel_softmax(self.net(x), tau=1.0, hard=True)
    Right:  softdraw.nn.GumbelSoftmax, which takes the argmax in eval mode, or an explicit `if self.training:`
    """

    code = "SD203"
    needs = (spellings("gumbel_softmax"),)
    default = False

    def run(self, source: Program) -> Iterator[Finding]:
        for draw in source.of("gumbel_softmax"):
            function = source.enclosing(draw.call, cst.FunctionDef)
            owner = source.enclosing(draw.call, cst.ClassDef)
            if function is None or owner is None or "training" in source.text_of(function):
                continue
            if any((source.name(base.value) or "").endswith("Module") for base in owner.bases):
                message = "gumbel_softmax draws in eval mode too: evaluation stays random"
                yield self.found(source, draw.call, message, likely=True)
