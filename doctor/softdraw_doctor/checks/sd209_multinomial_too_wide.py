from __future__ import annotations

import ast
from collections.abc import Iterator

import libcst as cst

from softdraw_doctor.checks.sd208_multinomial_of_softmax import multinomials
from softdraw_doctor.finding import Cannot, Check, Finding
from softdraw_doctor.operations import Program

_LIMIT = 2**24
_MAKERS = ("torch.ones", "torch.rand", "torch.zeros", "torch.full", "torch.empty", "torch.arange")


class MultinomialTooWide(Check):
    """torch.multinomial is given more than 2**24 categories.

    It raises "number of categories cannot exceed 2^24". So does torch.utils.data.WeightedRandomSampler with as many
    weights, which calls multinomial. At 2**24 itself, with replacement, the float32 sum has stopped growing: the upper
    half is drawn 0 times.

    Off by default: --select SD209 turns it on.

    Wrong:  torch.multinomial(torch.ones(20_000_000), 8)
    Right:  softdraw.multinomial(weights.log(), 8), or softdraw.WeightedSampler for a data loader
    """

    code = "SD209"
    needs = (("multinomial", "WeightedRandomSampler"),)
    symptoms = (r"number of categories cannot exceed",)
    default = False

    def run(self, source: Program) -> Iterator[Finding]:
        wanted = [(call, weights) for call, weights, _ in multinomials(source)]
        for call in source.nodes(cst.Call):
            if (
                source.name(call.func) == "torch.utils.data.WeightedRandomSampler"
                and call.args
                and not call.args[0].star
            ):
                wanted.append((call, call.args[0].value))
        for call, weights in wanted:
            count = _categories(source, weights)
            if count > _LIMIT:
                edits = Cannot("another generator draws other numbers: use softdraw.multinomial of the logarithms")
                yield self.found(source, call, f"{count:,} categories: multinomial takes at most 2**24", edits)


def _categories(program: Program, weights: cst.BaseExpression) -> int:
    """The last size of a tensor that is made with literal sizes, or 0."""
    made = program.value(program.peeled(program.value(weights))[0])
    if not isinstance(made, cst.Call) or program.name(made.func) not in _MAKERS:
        return 0
    sizes = [a.value for a in made.args if a.keyword is None and not a.star]
    if program.name(made.func) == "torch.full":
        sizes = sizes[:1]
    last = sizes[-1] if sizes else None
    if isinstance(last, (cst.Tuple, cst.List)) and last.elements:
        last = last.elements[-1].value
    return _number(program, last) if last is not None else 0


def _number(program: Program, value: cst.BaseExpression) -> int:
    """A product, power or shift of literal integers."""
    try:
        tree = ast.parse(
            f"({program.text_of(program.value(value))})", mode="eval"
        ).body  # it may stand on several lines
    except SyntaxError:
        return 0
    return _evaluated(tree)


def _evaluated(tree: ast.expr) -> int:
    if isinstance(tree, ast.Constant) and type(tree.value) is int:
        return tree.value
    if isinstance(tree, ast.BinOp):
        left, right = _evaluated(tree.left), _evaluated(tree.right)
        if isinstance(tree.op, ast.Mult):
            return left * right
        if isinstance(tree.op, ast.Add):
            return left + right if left and right else 0
        if isinstance(tree.op, (ast.Pow, ast.LShift)) and 0 < right < 64 and left < 1000:
            return left**right if isinstance(tree.op, ast.Pow) else left << right
    return 0
