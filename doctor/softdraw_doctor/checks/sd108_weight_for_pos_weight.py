from __future__ import annotations

import re
from collections.abc import Iterator

import libcst as cst

from softdraw_doctor.finding import Check, Edit, Finding
from softdraw_doctor.operations import Program
from softdraw_doctor.vocabulary import BY_MODULE, spellings

_POSITIVE = re.compile(r"pos(itive)?_?w(eight|t)?s?$", re.IGNORECASE)


class WeightForPosWeight(Check):
    """A pos_weight is passed to BCE-with-logits as weight.

    The third positional argument of F.binary_cross_entropy_with_logits, and the first of nn.BCEWithLogitsLoss, is
    weight: it scales positives and negatives alike. Nothing fails if the shape broadcasts; the classes stay unbalanced.

    Wrong:  F.binary_cross_entropy_with_logits(x, y, pos_weight)
    Right:  F.binary_cross_entropy_with_logits(x, y, pos_weight=pos_weight)

    The rewrite changes what is computed, on purpose: it needs --unsafe-fixes.
    """

    code = "SD108"
    needs = (spellings("bce_logits"),)

    def run(self, source: Program) -> Iterator[Finding]:
        candidates = [op.arguments["weight"] for op in source.of("bce_logits") if "weight" in op.arguments]
        for call in source.nodes(cst.Call):
            if BY_MODULE.get(source.name(call.func) or "") == "bce_logits":
                first = [a for a in call.args[:1] if not a.star and a.keyword is None]
                candidates += first or [a for a in call.args if a.keyword is not None and a.keyword.value == "weight"]
        for arg in candidates:
            name = arg.value.attr if isinstance(arg.value, cst.Attribute) else arg.value
            if isinstance(name, cst.Name) and _POSITIVE.search(name.value):
                start = source.span(arg.value)[0]
                message = f"{name.value} is passed as weight: write pos_weight={source.text_of(arg.value)}"
                keyword = source.span(arg.keyword) if arg.keyword is not None else None
                edits = (Edit(*keyword, "pos_weight") if keyword else Edit(start, start, "pos_weight="),)
                yield self.found(source, arg.value, message, edits, unsafe=True)
