"""Functions that read values make their own tensors on the CPU, whatever torch's default device is."""

from __future__ import annotations

import pytest
import torch

import softdraw
from softdraw import conformance, schedules

X = torch.linspace(-1, 1, 12).view(3, 4)
F = torch.arange(4.0)


def _scheduled():
    module = torch.nn.Module()
    module.register_buffer("tau", torch.ones((), device="cpu"))
    scheduler = schedules.TauScheduler(module, schedules.linear(1.0, 0.5, 2))
    scheduler.step()
    return module.tau.item()


def _first_usage():
    usage = softdraw.metrics.CodeUsage(4)
    usage.update(X.softmax(-1))
    return usage.compute()


def _report():
    report = softdraw.diagnose(lambda y: (y * F).sum(-1) ** 2, softdraw.OneHotCategorical(X), rules=[softdraw.ZGR()])
    return f"{report.rules[0].bias.value:.5f}"  # a mode makes torch round elsewhere


def _conforms():
    def by_library(logits, seed, rows):
        return softdraw.gumbel_max(logits, seed=seed, rows=rows)

    return str(conformance.check(by_library, tail=0))


CALLS = {
    "TauScheduler": _scheduled,
    "CodeUsage": _first_usage,
    "code_usage": lambda: softdraw.metrics.code_usage(X.softmax(-1)),
    "diagnose": _report,
    "conformance": _conforms,
    "law[list]": lambda: softdraw.OneHotCategorical(X)[[0, 2]].sample(seed=0),
    "law[no element]": lambda: softdraw.OneHotCategorical(X)[[]].sample(seed=0).shape,
    "fold_in": lambda: softdraw.fold_in(3, "a", 5),
    "WeightedSampler": lambda: list(softdraw.WeightedSampler([0.1, 0.2, 0.7], 5, seed=0)),
    "Subset": lambda: softdraw.Subset(X, 2).rsample(seed=0),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_default_device_without_memory_changes_nothing(name):
    expected = CALLS[name]()
    with torch.device("meta"):
        got = CALLS[name]()
    assert str(got) == str(expected)
