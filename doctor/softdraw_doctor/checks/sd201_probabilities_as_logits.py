from __future__ import annotations

import re
from collections.abc import Iterator

import libcst as cst

from softdraw_doctor.checks.likelihood import logits_instead
from softdraw_doctor.finding import Check, Finding
from softdraw_doctor.operations import Program
from softdraw_doctor.rewrite import replaced
from softdraw_doctor.vocabulary import spellings

# The place of logits among the arguments of each law.
_LAWS = {
    "OneHotCategorical": 1,
    "OneHotCategoricalStraightThrough": 1,
    "Categorical": 1,
    "RelaxedOneHotCategorical": 2,
    "Bernoulli": 1,
    "RelaxedBernoulli": 2,
}
_PROBABILITIES = re.compile(r"^(probs?|probabilities|softmax_(out|output|probs?)|\w+_probs?)$")
_LOGARITHM = re.compile(r"log")


class ProbabilitiesAsLogits(Check):
    """Probabilities are handed to something that wants logits.

    Nothing fails: the softmax is applied a second time, and the draw has another law. Probabilities (0.7, 0.2, 0.1)
    taken for logits are drawn as (0.46, 0.28, 0.25). It happens in F.gumbel_softmax and in the logits= of Categorical,
    OneHotCategorical and RelaxedOneHotCategorical, and with a sigmoid in those of Bernoulli.

    Wrong:  F.gumbel_softmax(F.softmax(x, dim=-1));    Categorical(logits=torch.softmax(x, dim=-1))
    Right:  softdraw.gumbel_softmax(x);                Categorical(logits=x) or Categorical(probs=...)

    The rewrite changes what is drawn, on purpose: it needs --unsafe-fixes.
    """

    code = "SD201"
    needs = ((*spellings("gumbel_softmax"), *_LAWS),)

    def run(self, source: Program) -> Iterator[Finding]:
        for draw in source.of("gumbel_softmax"):
            if "logits" in draw.arguments:
                yield from self._checked(source, draw.call, draw.arguments["logits"], "gumbel_softmax")
        for call in source.nodes(cst.Call):
            name = source.name(call.func) or ""
            short = name.rpartition(".")[2]
            if not (name.startswith("torch.distributions.") and short in _LAWS):
                continue
            for i, arg in enumerate(call.args):
                if arg.keyword.value == "logits" if arg.keyword is not None else i == _LAWS[short] and not arg.star:
                    yield from self._checked(source, call, arg, f"{short}(logits=...)")

    def _checked(self, source: Program, call: cst.Call, arg: cst.Arg, what: str) -> Iterator[Finding]:
        origin = source.origin(arg.value)
        activation = "sigmoid" if "Bernoulli" in what else "softmax"
        if origin is not None and origin.operation.kind == activation:
            keyword = arg.keyword if what.endswith(")") else None
            edits = replaced(source, keyword, "probs") if keyword else logits_instead(source, arg.value, origin)
            message = f"{activation} into {what}, which takes logits: the draw has another law"
            yield self.found(source, call, message, edits, unsafe=True)
        elif origin is None and isinstance(arg.value, (cst.Name, cst.Attribute)):
            name = arg.value.value if isinstance(arg.value, cst.Name) else arg.value.attr.value
            known = isinstance(arg.value, cst.Name) and source.value(arg.value) is not arg.value
            if not known and _PROBABILITIES.match(name) and not _LOGARITHM.search(name):
                message = (
                    f"{name} into {what}, which takes logits: if these are probabilities, the draw has another law"
                )
                yield self.found(source, call, message, likely=True)
