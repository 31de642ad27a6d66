"""Every repaired case under every form of import, run: safe fixes keep the numbers, unsafe ones give the right ones."""

import functools
import re
import types
import warnings

import pytest
import torch
from doctor_cases import BAD, IMPORTS
from softdraw_doctor.checks import CHECKS
from softdraw_doctor.engine import repair

MODULES = {"torch": "torch", "nn": "torch.nn", "F": "torch.nn.functional"}
FORMS = {  # the imports, and what they call torch, torch.nn and torch.nn.functional
    "import functional as": (
        "import torch\nimport torch.nn as nn\nimport torch.nn.functional as F\n",
        "torch",
        "nn",
        "F",
    ),
    "from nn import": (
        "import torch\nfrom torch import nn\nfrom torch.nn import functional as F\n",
        "torch",
        "nn",
        "F",
    ),
    "torch alone": ("import torch as t\n", "t", "t.nn", "t.nn.functional"),
    "names": (),
}
CASES = [
    case
    for case in BAD
    if case.fixed is not None
    and case.bad.startswith(IMPORTS)
    and "\ndef f(" in case.bad
    and "self.pos_weight" not in case.bad  # gives a criterion, not a loss
]


def under(form, text):
    """The text with its imports in another form; "names" takes every function by an import of its own."""
    body = text.removeprefix(IMPORTS)
    if FORMS[form]:
        imports, *names = FORMS[form]
        named = dict(zip(MODULES, names, strict=True))
        return imports + re.sub(r"(?<![.\w])(torch|nn|F)\.", lambda m: named[m[1]] + ".", body)
    taken = {}
    body = re.sub(
        r"(?<![.\w])(torch|F|nn)\.(\w+)\b(?!\.)", lambda m: taken.setdefault(m.groups(), f"z{len(taken)}"), body
    )
    head = "".join(f"from {MODULES[module]} import {name} as {alias}\n" for (module, name), alias in taken.items())
    return "import torch\n" + head + body


def outcome(text, target):
    """What ``f(x, y)`` of the file gives, and the gradient of its sum; None where the case fails."""
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64).requires_grad_()
    scope = {"__name__": "case", "tau": 0.5, "dim": 0, "pos_weight": torch.tensor([1.0, 2.0, 3.0])}
    scope["self"] = types.SimpleNamespace(temperature=0.5)
    torch.manual_seed(0)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            exec(compile(text, "case.py", "exec"), scope)
            value = scope["f"](x, target)
    except (RuntimeError, AttributeError):  # targets of another kind; a loss constructor that is given tensors (SD103)
        return None
    if isinstance(value, torch.distributions.Distribution):
        value = value.log_prob(value.sample())
    if value.grad_fn is None:
        return value, None
    return value.detach(), torch.autograd.grad(value.sum(), x)[0]


CLASSES = torch.tensor([0, 2, 1, 1, 0])
TARGETS = (torch.rand(5, 3, generator=torch.Generator().manual_seed(4)).double(), CLASSES[:, None], CLASSES)


@functools.cache
def right(case):
    """The numbers of the hand-written repair, under its own imports, and the target that it takes."""
    found = ((outcome(case.fixed, target), target) for target in TARGETS)
    return next(pair for pair in found if pair[0] is not None)


@pytest.mark.parametrize("form", FORMS)
def test_a_fix_under_any_import_gives_the_numbers_of_the_right_code(form):
    assert len(CASES) >= 46
    for case in CASES:
        text = under(form, case.bad)
        checks = [check for check in CHECKS if check.code in (case.code, "SD101")]
        fixed = repair(text, "case.py", checks, unsafe=True).text
        assert fixed != text, text
        numbers, target = right(case)
        close = {"rtol": 1e-6, "atol": 1e-6} if case.code == "SD107" else {"rtol": 1e-10, "atol": 1e-12}
        torch.testing.assert_close(outcome(fixed, target), numbers, **close, msg=lambda m, text=text: f"{text}\n{m}")
        before = outcome(text, target)
        if case.code == "SD103":
            assert before is None  # it raised
        elif case.same or not case.unsafe:
            torch.testing.assert_close(outcome(fixed, target), before, **close)
        elif case.code != "SD202":  # a wrong eps changes no number
            assert not torch.allclose(before[0], numbers[0]), text
