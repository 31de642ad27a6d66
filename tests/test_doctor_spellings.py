"""The doctor's shortcut loses nothing: whatever a check finds in the whole file, it finds through `examine`."""

import ast
import io
import re
import textwrap
import tokenize

import pytest
from doctor_cases import BAD, GOOD, IMPORTS
from softdraw_doctor.checks import CHECKS
from softdraw_doctor.engine import examine, relevant
from softdraw_doctor.operations import Program

TEXTS = [*(case.bad for case in BAD), *GOOD]
# Aliases and layouts change no finding; comments may (noqa).
QUIET = [text for text in TEXTS if "noqa" not in text]
BETWEEN = {
    "spaces": ("  ", "  "),
    "backslashes": (" \\\n", " \\\n"),
    "line breaks": (" ", "\n"),
    "comments": (" ", "  # said (here)\n"),
}


def respelled(text, outside, inside):
    """The same code with something between every two tokens of a line, outside brackets and inside."""
    lines, points, depth, last = text.splitlines(True), [], 0, None
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        blank = (tokenize.NEWLINE, tokenize.NL, tokenize.COMMENT, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)
        depth -= token.string in ")]}" and token.type == tokenize.OP
        if last is not None and last.end[0] == token.start[0] and not {last.type, token.type} & set(blank):
            points.append((*token.start, inside if depth else outside))
        depth += token.string in "([{" and token.type == tokenize.OP
        last = token
    for row, column, gap in reversed(points):
        lines[row - 1] = lines[row - 1][:column] + gap + lines[row - 1][column:]
    return "".join(lines)


def aliased(text):
    """Every module under another name, in a parenthesised import where that is possible."""
    head, body = IMPORTS, text.removeprefix(IMPORTS)
    for old, new, name, alias in (
        ("import torch\n", "import torch as th\n", "torch", "th"),
        ("import nn\n", "import (\n    nn as tn,\n)\n", "nn", "tn"),
        ("functional as F\n", "functional as FF\n", "F", "FF"),
    ):
        head = head.replace(old, new)
        body = re.sub(rf"(?<![.\w]){name}\.", f"{alias}.", body)
    return head.replace("torch.float64", "th.float64") + body


def renamed(text):
    """Every function and class under a name of its own: ``from torch import sigmoid as z0``."""
    body, names = text.removeprefix(IMPORTS), {}

    def alias(match):
        return names.setdefault(match.groups(), f"z{len(names)}")

    body = re.sub(r"(?<![.\w])(torch|F|nn)\.(\w+)\b(?!\.)", alias, body)
    modules = {"torch": "torch", "F": "torch.nn.functional", "nn": "torch.nn"}
    head = "".join(f"from {modules[module]} import (\n    {n} as {z},\n)\n" for (module, n), z in names.items())
    return IMPORTS + head + body


def placed(text):
    """The body of ``def f`` as code of the module, in every kind of block, with the imports in another block."""
    head, found, body = text.partition("def f(x, y):\n")
    if not found:
        return
    body = re.sub(r"\breturn\b", "out =", textwrap.dedent(body))
    lines, last = body.splitlines(True), ast.parse(body).body[-1].lineno - 1
    first, rest = "".join(lines[:last]), "".join(lines[last:])
    for opening, closing in (
        ("for x, y in loader:\n", ""),
        ("while True:\n", ""),
        ("with context() as c:\n", ""),
        ("try:\n", "except OSError:\n    pass\n"),
        ("if flag:\n", ""),
        ("class A:\n", ""),
        ("def train(x, y):\n", ""),
        ("async def train(x, y):\n", ""),
    ):
        inside = textwrap.indent(body, "    ")
        yield head + opening + inside + closing
        yield "try:\n" + textwrap.indent(head, "    ") + "finally:\n    pass\n" + opening + inside + closing
        if first:
            yield head + first + opening + textwrap.indent(rest, "    ") + closing


def variants(text):
    yield text
    yield from (respelled(text, *gaps) for gaps in BETWEEN.values())
    yield from placed(text)
    if text.startswith(IMPORTS):
        yield aliased(text)
        yield renamed(text)
        yield respelled(renamed(text), *BETWEEN["comments"])


def found(text):
    """Each check's findings in the whole text, without the shortcut."""
    program = Program(text, "case.py")
    return [finding.code for check in CHECKS for finding in check.run(program)]


@pytest.mark.parametrize("number", range(len(TEXTS)))
def test_the_shortcut_keeps_every_check_that_finds_something(number):
    """A variant is analysed where the shortcut drops a check that finds something in the text as it was."""
    text, *others = variants(TEXTS[number])
    expected = set(found(text))
    assert expected <= {check.code for check in relevant(text, CHECKS)}, text
    for other in others:
        dropped = expected - {check.code for check in relevant(other, CHECKS)}
        assert not dropped or not dropped & set(found(other)), other


@pytest.mark.parametrize("number", range(len(QUIET)))
def test_layout_and_aliases_change_no_finding(number):
    text = QUIET[number]
    spellings = [respelled(text, *gaps) for gaps in BETWEEN.values()]
    if text.startswith(IMPORTS):
        spellings += [aliased(text), renamed(text)]
    expected = sorted(found(text))
    for spelling in spellings:
        assert sorted(f.code for f in examine(spelling, "case.py", CHECKS)) == expected, spelling


HEAD = "import torch\nimport torch.nn as nn\nimport torch.nn.functional as F\n"
NET = (
    HEAD + "class Net(nn.Module):\n    def __init__(self):\n        self.l = nn.Linear(2, 1)\n"
    "    def forward(self, x):\n        return {}\nmodel = Net()\n"
)
SIGMOID, SOFTMAX = NET.format("torch.sigmoid(self.l(x))"), NET.format("F.softmax(self.l(x), dim=1)")
SEQUENTIAL = HEAD + "model = nn.Sequential(nn.Linear(2, 1), nn.Sigmoid())\n"
BCE, CE = "criterion = nn.BCELoss()\n", "criterion = nn.CrossEntropyLoss()\n"
LOOP = "for x, y in loader:\n    out = model(x)\n    loss = criterion(out, y)\n"
TRAIN = "def train(x, y):\n    return criterion(model(x), y)\n"
GUARDED = "try:\n    import torch\n    import torch.nn.functional as F\nexcept ImportError:\n    raise\n"
ACROSS = {
    "a model and a criterion of the module, used in a loop": ("SD101", SIGMOID + BCE + LOOP),
    "the same, used in a function": ("SD101", SIGMOID + BCE + TRAIN),
    "a Sequential used in a loop": ("SD101", SEQUENTIAL + BCE + LOOP),
    "a softmax model used in a function": ("SD105", SOFTMAX + CE + TRAIN),
    "a softmax model used in a with block": (
        "SD105",
        SOFTMAX + CE + "with torch.no_grad():\n    criterion(model(x), y)\n",
    ),
    "imports in try": ("SD101", GUARDED + "def f(x, y):\n    return F.binary_cross_entropy(torch.sigmoid(x), y)\n"),
    "both functions under an alias": (
        "SD101",
        "from torch import sigmoid as s\nfrom torch.nn.functional import binary_cross_entropy as b\n"
        "def f(x, y):\n    return b(s(x), y)\n",
    ),
    "keywords in the first argument": (
        "SD103",
        HEAD + "def f(model, ids, y):\n    return nn.CrossEntropyLoss(model(input_ids=ids), y)\n",
    ),
    "a loss class under an alias": (
        "SD103",
        "from torch.nn import MSELoss as M\ndef f(out, y):\n    return M(out, y)\n",
    ),
    "a law under an alias": (
        "SD201",
        "from torch.distributions import Categorical as Cat\ndef f(probs):\n    return Cat(logits=probs)\n",
    ),
    "a temperature in capitals": ("SD206", "import torch\n# Gumbel\nTAU = 1.0\nTAU *= 0.9\n"),
}


@pytest.mark.parametrize("name", ACROSS)
def test_what_is_spread_over_a_file_is_found(name):
    code, text = ACROSS[name]
    assert [f.code for f in examine(text, "case.py", CHECKS)] == [code]


def test_a_file_without_the_words_is_not_analysed(monkeypatch):
    monkeypatch.setattr("softdraw_doctor.engine.Program", lambda *_: pytest.fail("analysed"))
    text = HEAD + "# BCELoss, sigmoid, softmax().log(), rand, detach, gumbel tau *=\nlogits = torch.zeros(3)\n"
    assert examine(text, "case.py", CHECKS) == []
