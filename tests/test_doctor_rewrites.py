"""What a rewrite leaves as it was: the imports in use, the meaning of names, what other files see, comments, lines."""

import itertools
import textwrap

import pytest
import torch
from doctor_cases import BAD, IMPORTS
from softdraw_doctor.checks import CHECKS
from softdraw_doctor.command import run
from softdraw_doctor.engine import examine, repair
from test_doctor_spellings import BETWEEN, respelled


def value(text, name="f"):
    """What ``f(x, y)`` of a text gives."""
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(5, 3, generator=generator, dtype=torch.float64) for _ in range(2))
    scope: dict = {"__name__": "case"}
    exec(compile(text, "case.py", "exec"), scope)
    return scope[name](x, y.sigmoid())


def repaired(text, unsafe=False):
    """The text after the fixes, which have to compute the same."""
    new = repair(text, "case.py", CHECKS, unsafe).text
    torch.testing.assert_close(value(new), value(text), rtol=1e-10, atol=1e-12)
    return new


# How a file imports torch, and what it then calls torch, torch.nn.functional and torch.nn.
FORMS = [
    ("import torch", "torch", "torch.nn.functional", "torch.nn"),
    ("import torch.nn", "torch", "torch.nn.functional", "torch.nn"),
    ("import torch.nn.functional", "torch", "torch.nn.functional", "torch.nn"),
    ("import torch, torch.nn", "torch", "torch.nn.functional", "torch.nn"),
    ("import torch\nimport torch.nn", "torch", "torch.nn.functional", "torch.nn"),
    ("import torch, torch.nn as nn, torch.nn.functional as F", "torch", "F", "nn"),
    ("import torch as th\nfrom torch import nn as tn\nfrom torch.nn import functional as FF", "th", "FF", "tn"),
    ("import torch\nfrom torch import (\n    nn,\n    zeros,\n)\nF = 1", "torch", "nn.functional", "nn"),
]
BODIES = [
    "return {F}.binary_cross_entropy({T}.sigmoid(x), y)",
    "return {N}.BCELoss()({T}.sigmoid(x), y)",
    "criterion = {N}.BCELoss()\nreturn criterion({N}.Sigmoid()(x), y)",
    "return {T}.log({T}.sigmoid(x)).sum()",
    "return x.sigmoid().log().sum()",
    "return {T}.log({F}.softmax(x, -1)).sum()",
    "return {N}.functional.softmax(x, -1).log().sum()",
]
PLACES = {
    "top": "{imports}\ndef f(x, y):\n{body}",
    "function": "def f(x, y):\n{inner}\n{body}",
    "try": "try:\n{inner}\nexcept ImportError:\n    raise\ndef f(x, y):\n{body}",
    "if": "if True:\n{inner}\ndef f(x, y):\n{body}",
    "both": "{imports}\ndef f(x, y):\n{inner}\n{body}",
    "late": "def f(x, y):\n{body}\n{imports}\n",
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("form", range(len(FORMS)))
def test_imports_that_are_in_use_stay(form, place):
    imports, *names = FORMS[form]
    for body in BODIES:
        body = textwrap.indent(body.format(**dict(zip("TFN", names, strict=True))), "    ") + "\n"
        text = PLACES[place].format(imports=imports, inner=textwrap.indent(imports, "    "), body=body)
        assert examine(text, "case.py", CHECKS), text
        repaired(text)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("from torch import (\n    sigmoid,\n    zeros,\n)", "from torch import (\n    zeros,\n)"),
        ("from torch import (\n    zeros,\n    sigmoid,\n)", "from torch import (\n    zeros,\n)"),
        ("from torch import (zeros, sigmoid)", "from torch import (zeros)"),
        ("from torch import zeros, sigmoid, ones, log", "from torch import zeros, ones, log"),
        ("from torch import zeros as z, sigmoid, ones", "from torch import zeros as z, ones"),
        ("from torch import sigmoid, zeros", "from torch import zeros"),
        ("import os\nfrom torch import (\n    sigmoid\n)\nimport sys", "import os\nimport sys"),
        ("from torch import (\n    sigmoid,  # why\n    zeros,\n)", None),
        ("from torch import sigmoid  # noqa: F401", None),
        ("__all__ = ['sigmoid']\nfrom torch import sigmoid", None),
        ("from torch import sigmoid\ndef g(x: 'sigmoid | None'): ...", None),
        ("from torch import sigmoid\ndef g(x):\n    return sigmoid(x)", None),
        ("from torch import sigmoid\nclass A:\n    def g(self):\n        return [sigmoid for _ in self]", None),
    ],
)
def test_imports_that_are_not_in_use_go(before, after):
    rest = "\nfrom torch.nn.functional import {}\ndef f(x, y):\n    return {}({}, y)\n"
    loss = "binary_cross_entropy"
    new = repaired(before + rest.format(loss, loss, "sigmoid(x)"))
    loss += "_with_logits"
    assert new == (after or before) + rest.format(loss, loss, "x")


# F is torch.nn.functional for the file, and something else where the rewrite would write it.
SHADOWS = {
    "a parameter": "def f(x, y, F=2.0):\n    return {} * F\n",
    "a local": "def f(x, y):\n    F = 3\n    return {} * F\n",
    "a later local": "def f(x, y):\n    out = {}\n    F = 3\n    return out * F\n",
    "a lambda's": "def f(x, y):\n    return (lambda F: {} * F)(2)\n",
    "a comprehension's": "def f(x, y):\n    return sum({} * F for F in (1, 2))\n",
    "a loop's": "def f(x, y):\n    for F in (1, 2):\n        out = {} * F\n    return out\n",
    "an outer function's": "def f(x, y):\n    F = 2\n    def g():\n        return {} * F\n    return g()\n",
    "another import": "def f(x, y):\n    import math as F\n    return {} * F.pi\n",
    "a walrus's": "def f(x, y):\n    return (F := 2) * {}\n",
    "a with's": "import contextlib\ndef f(x, y):\n    with contextlib.nullcontext(2) as F:\n        return {} * F\n",
    "a class's": "def f(x, y):\n    class A:\n        F = 2\n        out = {} * F\n    return A.out\n",
    "a global's": "def f(x, y):\n    return {}\ndef g():\n    global F\n    F = 2\ng()\n",
}


@pytest.mark.parametrize("shadow", SHADOWS)
@pytest.mark.parametrize(
    ("imports", "expression"),
    [
        ("import torch\nimport torch.nn.functional as F\n", "torch.log(torch.sigmoid(x))"),
        ("import torch\nimport torch.nn.functional as F\n", "x.sigmoid().log()"),
        ("import torch.nn.functional as F\nfrom torch import log, sigmoid\n", "log(sigmoid(x))"),
        ("from torch import log, sigmoid\nfrom torch.nn.functional import logsigmoid as F\n", "log(sigmoid(x))"),
    ],
)
def test_a_rewrite_writes_no_name_that_means_something_else(shadow, imports, expression):
    text = imports + SHADOWS[shadow].format(expression)
    assert "SD109" in [f.code for f in examine(text, "case.py", CHECKS)]
    repaired(text)


def test_imports_of_a_function_serve_its_rewrites():
    text = "def f(x, y):\n    import torch as th\n    return th.log(th.sigmoid(x))\n"
    assert repaired(text) == text.replace("th.log(th.sigmoid(x))", "th.nn.functional.logsigmoid(x)")


@pytest.mark.parametrize(
    "line",
    [
        "from ops import sigmoid",
        "from ops import a, \\\n    sigmoid",
        "from .ops import (\n    a,\n    sigmoid,\n)",
        "    from lib.ops import *  # all",
    ],
)
@pytest.mark.parametrize("fix_folder", [True, False])
def test_an_import_that_another_file_takes_stays(tmp_path, line, fix_folder):
    loss = "from torch.nn.functional import binary_cross_entropy\n"
    call = "def f(x, y):\n    return binary_cross_entropy(sigmoid(x), y)\n"
    (tmp_path / "ops.py").write_text("from torch import sigmoid\n" + loss + call)
    (tmp_path / "other.py").write_text(f"if True:\n{line}\n" if line.startswith(" ") else line + "\n")
    assert run(["--fix", str(tmp_path if fix_folder else tmp_path / "ops.py")]) == 0
    after = (tmp_path / "ops.py").read_text()
    assert "from torch import sigmoid\n" in after
    assert "binary_cross_entropy_with_logits(x, y)" in after


def test_a_rewrite_uses_no_import_that_comes_later():
    line = "out = torch.log(torch.sigmoid(torch.zeros(3)))\n"
    text = "import torch\n" + line + "import torch.nn.functional as F\ndef f(x, y):\n    return out\n"
    assert "out = torch.nn.functional.logsigmoid(torch.zeros(3))" in repair(text, "case.py", CHECKS, unsafe=True).text
    repaired(text, unsafe=True)


def test_a_name_that_is_taken_is_not_imported():
    text = (
        "from torch import log, sigmoid\ndef logsigmoid(x):\n    return x\ndef f(x, y):\n    return log(sigmoid(x))\n"
    )
    (finding,) = examine(text, "case.py", CHECKS)
    assert finding.reason == "the name logsigmoid may be taken in this file: import torch.nn.functional first"
    assert repaired(text) == text


STEP = "def step(x, y):\n    return criterion(torch.sigmoid(x), y)\n"
METHOD = "    def step(self, x, y):\n        return {}(torch.sigmoid(x), y)\n"
INIT = "class Trainer:\n    def __init__(self):\n        {} = nn.BCELoss()\n"
LOCAL = "def f(x, y):\n    criterion = nn.BCELoss()\n    loss = criterion(torch.sigmoid(x), y)\n"
PRODUCT = "p = torch.sigmoid(x)\nloss = F.binary_cross_entropy(p, y)\n"
# (who can see the object that the fix changes, what --fix does: "safe", "unsafe" or "no")
VISIBLE = [
    ("criterion = nn.BCELoss()\n" + STEP, "unsafe"),
    ("criterion: nn.Module = nn.BCELoss()\n" + STEP, "unsafe"),
    ("if flag:\n    criterion = nn.BCELoss()\n" + STEP, "unsafe"),
    ("_criterion = nn.BCELoss()\n" + STEP.replace("criterion(", "_criterion("), "safe"),
    ("if __name__ == '__main__':\n    criterion = nn.BCELoss()\n    loss = criterion(torch.sigmoid(x), y)\n", "safe"),
    (
        "def f(x, y):\n    global criterion\n    criterion = nn.BCELoss()\n    criterion(torch.sigmoid(x), y)\n",
        "unsafe",
    ),
    (INIT.format("self.loss") + METHOD.format("self.loss"), "unsafe"),
    (INIT.format("self._loss") + METHOD.format("self._loss"), "unsafe"),  # a subclass in another file may use it
    (INIT.format("self.__loss") + METHOD.format("self.__loss"), "safe"),
    (INIT.format("self.__loss = self.loss") + METHOD.format("self.__loss"), "no"),
    (LOCAL + "    return loss\n", "safe"),
    (LOCAL + "    return criterion\n", "no"),
    (LOCAL + "    return loss, evaluate(criterion)\n", "no"),
    (LOCAL + "    self.criterion = criterion\n", "no"),
    (LOCAL + "    yield criterion\n", "no"),
    (LOCAL + "    return lambda p: criterion(p, y)\n", "no"),
    (LOCAL.replace("criterion = ", "criterion = self.criterion = "), "no"),
    (LOCAL.replace("nn.BCELoss()\n", "made\n").replace("    crit", "    made = nn.BCELoss()\n    crit", 1), "safe"),
    (
        LOCAL.replace("nn.BCELoss()\n", "made\n").replace("    crit", "    made = nn.BCELoss()\n    crit", 1)
        + "    return made\n",
        "no",
    ),
    (PRODUCT, "unsafe"),
    ("class A:\n" + textwrap.indent(PRODUCT, "    "), "unsafe"),
    ("def f(x, y):\n" + textwrap.indent(PRODUCT, "    "), "safe"),
    ("p = x.softmax(-1)\nq = p.log()\n", "unsafe"),
    ("def f(x):\n    p = x.softmax(-1)\n    return p.log()\n", "safe"),
    ("def f(x):\n    p = self.p = x.softmax(-1)\n    return p.log()\n", "no"),
]


@pytest.mark.parametrize("number", range(len(VISIBLE)))
def test_a_fix_that_another_file_could_notice_is_not_safe(number):
    body, outcome = VISIBLE[number]
    text = IMPORTS + body
    (finding,) = examine(text, "case.py", CHECKS)
    assert outcome == ("no" if not finding.edits else "unsafe" if finding.unsafe else "safe")
    assert bool(finding.reason) == (outcome != "safe")
    assert (repair(text, "case.py", CHECKS).text == text) == (outcome != "safe")
    assert (repair(text, "case.py", CHECKS, unsafe=True).text == text) == (outcome == "no")


def test_a_shared_probability_keeps_its_value():
    text = IMPORTS + "def f(x, y):\n    p = q = torch.sigmoid(x)\n    return F.binary_cross_entropy(p, y) + q.mean()\n"
    assert "p = q = torch.sigmoid(x)" in repaired(text)


def test_another_file_computes_the_same_after_a_safe_fix(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    text = IMPORTS + "criterion = nn.BCELoss()\n" + STEP
    probabilities, targets = torch.tensor([0.99, 0.01]), torch.tensor([1.0, 0.0])
    for name, version in (("before", text), ("after", repair(text, "case.py", CHECKS).text)):
        (tmp_path / f"doctor_{name}.py").write_text(version)
        loss = __import__(f"doctor_{name}").criterion(probabilities, targets)
        assert loss.item() == pytest.approx(0.01005, rel=1e-3)  # -log 0.99


@pytest.mark.parametrize("number", range(len(BAD)))
def test_every_comment_stays(number):
    text = respelled(BAD[number].bad, *BETWEEN["comments"])
    counted = itertools.count()
    text = "".join(line.replace("# said", f"# said{next(counted)}.") for line in text.splitlines(True))
    new = repair(text, "case.py", CHECKS, unsafe=True).text
    compile(new, "case.py", "exec")
    assert [i for i in range(next(counted)) if f"# said{i}." in text and f"# said{i}." not in new] == []


@pytest.mark.parametrize("layout", ["spaces", "backslashes", "line breaks"])
@pytest.mark.parametrize("number", [i for i, case in enumerate(BAD) if case.same])
def test_a_rewrite_of_any_layout_computes_the_same(number, layout):
    repaired(respelled(BAD[number].bad, *BETWEEN[layout]), unsafe=True)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("y +\n    x -\n    x.detach()", "y +\n    (x -\n    x.detach())"),
        ("x +\n    y -\n    x.detach()", "y +\n    (x -\n    x.detach())"),
        ("y +  # hard\n    x -  # soft\n    x.detach()", "y +  # hard\n    (x -  # soft\n    x.detach())"),
        ("x +  # soft\n    y -\n    x.detach()", None),
        ("(y +\n    x) -\n    x.detach()", None),
    ],
)
def test_a_straight_through_sum_keeps_its_lines(before, after):
    text = "import torch\ndef f(x, y):\n    return (" + before + ")\n"
    assert repaired(text) == text.replace(before, after or before)


def test_a_constructor_keeps_its_comments():
    text = (
        IMPORTS + "l = nn.BCELoss(\n    a,  # prediction\n    b,  # target\n    reduction='sum',  # not the mean\n)\n"
    )
    (finding,) = examine(text, "case.py", CHECKS)
    assert finding.reason == "the rewrite would delete a comment"
    assert repair(text, "case.py", CHECKS).text == text


@pytest.mark.parametrize("shape", [(4, 3), (4, 5, 3)])
def test_the_mean_of_a_divergence_is_over_all_but_the_classes(shape):
    """SD110 writes the same for every shape, which "batchmean" is not: of (N, T, C) it is T times too large."""
    old = IMPORTS + "def f(x, y):\n    return F.kl_div(x.log_softmax(-1), y, reduction='mean')\n"
    names: dict = {}
    exec(repair(old, "case.py", CHECKS, unsafe=True).text, names)
    torch.manual_seed(0)
    x, y = torch.randn(shape, dtype=torch.float64), torch.randn(shape, dtype=torch.float64).softmax(-1)
    laws = [torch.distributions.Categorical(probs=y), torch.distributions.Categorical(logits=x)]
    torch.testing.assert_close(names["f"](x, y), torch.distributions.kl_divergence(*laws).mean())
