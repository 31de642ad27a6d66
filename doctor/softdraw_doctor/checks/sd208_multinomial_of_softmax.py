from __future__ import annotations

from collections.abc import Iterator

import libcst as cst

from softdraw_doctor.finding import Cannot, Check, Finding
from softdraw_doctor.operations import Program
from softdraw_doctor.vocabulary import spellings


class MultinomialOfSoftmax(Check):
    """torch.multinomial draws one index from a softmax. Advice, off by default: --select SD208 turns it on.

    It works. It also makes a second array of the size of the logits, whose sum in the dtype of the input stops growing
    (in bfloat16 over 131,072 tokens), and draws other numbers where the batch is put in another order.

    Wrong:  torch.multinomial(logits.softmax(-1), 1)
    Right:  softdraw.draw_index(logits), or softdraw.gumbel_max(logits)
    """

    code = "SD208"
    needs = (("multinomial",), spellings("softmax"))
    default = False

    def run(self, source: Program) -> Iterator[Finding]:
        for call, probabilities, count in multinomials(source):
            origin = source.origin(probabilities)
            if origin is None or origin.operation.kind != "softmax" or count is None:
                continue
            if source.text_of(source.value(count)) == "1":
                edits = Cannot("another generator draws other numbers: use softdraw.draw_index(logits)")
                yield self.found(source, call, "one index by multinomial(softmax): draw it from the logits", edits)


def multinomials(program: Program) -> Iterator[tuple[cst.Call, cst.BaseExpression, cst.BaseExpression | None]]:
    """The calls of multinomial, their probabilities, and the number of draws."""
    for call in program.nodes(cst.Call):
        arguments = [a.value for a in call.args if a.keyword is None and not a.star]
        named = {a.keyword.value: a.value for a in call.args if a.keyword is not None}
        if program.name(call.func) == "torch.multinomial":
            pass
        elif (
            isinstance(call.func, cst.Attribute)
            and call.func.attr.value == "multinomial"
            and not program.name(call.func)
        ):
            arguments = [call.func.value, *arguments]
        else:
            continue
        probabilities = arguments[0] if arguments else named.get("input")
        if probabilities is not None:
            yield call, probabilities, named.get("num_samples", arguments[1] if len(arguments) > 1 else None)
