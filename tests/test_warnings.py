"""Warnings stand at the user's line, however deep in softdraw or torch they arise."""

from __future__ import annotations

import warnings

import pytest
import torch
from unasked import unasked  # noqa: F401

import softdraw
from softdraw import kernels

LOGITS = torch.linspace(-1, 1, 6).view(2, 3)
LEAF = LOGITS.clone().requires_grad_()
SOFT = softdraw.nn.GumbelSoftmax(0.5)
STACKED = torch.nn.Sequential(torch.nn.Identity(), torch.nn.Sequential(SOFT))
LAW = softdraw.OneHotCategorical(LOGITS)

LINES = {
    "gumbel_softmax": lambda: softdraw.gumbel_softmax(LOGITS),
    "with its gradient": lambda: softdraw.gumbel_softmax(LEAF, hard=True),
    "gumbel_max": lambda: softdraw.gumbel_max(LOGITS),
    "gumbel_noise": lambda: softdraw.gumbel_noise((2, 3), seed=0),
    "draw": lambda: softdraw.draw(LOGITS, softdraw.ZGR()),
    "draw bits": lambda: softdraw.draw(softdraw.Bernoulli(LOGITS)),
    "a law": lambda: LAW.rsample(),
    "a law of torch": lambda: softdraw.draw(torch.distributions.OneHotCategorical(logits=LOGITS)),
    "a module": lambda: SOFT(LOGITS),
    "a module in modules": lambda: STACKED(LOGITS),
    "a loss": lambda: softdraw.losses.kl_to_uniform(LOGITS),
    "a compiled function": lambda: torch.compile(lambda x: softdraw.gumbel_max(x), backend="eager")(LOGITS),
    "under vmap": lambda: torch.func.vmap(softdraw.gumbel_max, randomness="different")(LOGITS),
}


@pytest.mark.usefixtures("unasked")
@pytest.mark.parametrize("call", LINES.values(), ids=LINES)
def test_the_warning_of_a_fallback_is_at_the_line_of_the_call(call, monkeypatch):
    monkeypatch.setattr(kernels, "_compiled", lambda: (None, "the test says so"))
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        call()
    (warning,) = [w for w in seen if "draws with plain torch on the CPU: the test says so" in str(w.message)]
    assert warning.category is RuntimeWarning
    assert (warning.filename, warning.lineno) == (__file__, call.__code__.co_firstlineno)
