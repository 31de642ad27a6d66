"""What the callbacks log, without the libraries that call them: usage of every module that chooses, and schedules."""

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import softdraw
from softdraw.integrations.optional import base
from softdraw.integrations.watch import Watch
from softdraw.schedules import linear
from tests.modules import MODULES, WIDTH, batch, made


def shares(index, codes):
    """How often each group ``(codes, ..., G)`` took each code, without rows of -1."""
    hot = nn.functional.one_hot(index[(index >= 0).all(-1)], codes).double()
    return hot.mean(0)


def watched(module):
    watch = Watch(None, usage=True)
    watch.start(module, 0)
    return watch


GATES = ["hard-concrete", "bernoulli", "gaussian", "grouped gate"]


@pytest.mark.parametrize("name", [name for name in MODULES if name not in GATES])
def test_usage_is_that_of_the_choices(name):
    module = made(name).train()
    watch = watched(module)
    chosen = [module(batch(20, seed)).index for seed in (1, 2)]
    numbers = watch.numbers()
    index = torch.cat(chosen)
    codes = getattr(module, "codes", None) or module.experts
    p = shares(index, codes)
    if hasattr(module, "experts"):  # k experts of one list
        p = p.mean(0, keepdim=True)
    assert numbers["perplexity"] == pytest.approx(torch.exp(-torch.xlogy(p, p).sum(-1)).mean().item())
    assert numbers["active_codes"] == (p > 0).sum()
    assert torch.isnan(torch.tensor(watch.numbers()["perplexity"]))  # nothing since the last call


def test_draws_of_gumbel_softmax_count_along_their_dimension():
    module = nn.Sequential(nn.Identity(), softdraw.nn.GumbelSoftmax(dim=1))
    watch = watched(module)
    p = nn.functional.one_hot(module(torch.randn(40, 5, 3)).argmax(1), 5).double().mean((0, 1))
    numbers = watch.numbers()
    assert numbers["1/perplexity"] == pytest.approx(torch.exp(-torch.xlogy(p, p).sum()).item())
    assert numbers["1/tau"] == 1.0


@pytest.mark.parametrize("name", GATES)
def test_gates_have_no_codes(name):
    module = made(name).train()
    watch = watched(module)
    module(batch())
    assert not set(watch.numbers()) - {"tau"}


def test_evaluation_compiled_graphs_and_rows_without_a_draw_do_not_count():
    module = made("codebook")
    watch = watched(module)
    module.eval()(batch())
    assert "perplexity" not in watch.numbers()
    module.train()
    torch.compile(module, backend="eager")(batch())
    assert "perplexity" not in watch.numbers()
    x = batch()
    x[2:] = torch.nan
    index = module(x).index
    assert watch.numbers()["active_codes"] == (shares(index[:2], 5) > 0).sum()


def test_recomputation_changes_no_number():
    """The pass runs twice, and its rows count twice: shares stay."""
    found = []
    for recompute in (False, True):
        module = made("codebook").train()
        watch, x = watched(module), batch(30).requires_grad_()
        torch.manual_seed(0)
        value = checkpoint(lambda z: module(z).value, x, use_reentrant=False) if recompute else module(x).value  # noqa: B023
        value.sum().backward()
        found.append(watch.numbers())
    assert found[0] == found[1]
    assert found[0]["perplexity"] > 1


def test_values_logged_are_those_of_the_last_step():
    module = softdraw.nn.GumbelSoftmax(tau=5.0)
    watch = Watch(linear(1.0, 0.5, 10), usage=False)
    watch.start(module, 2)
    assert module.tau.item() == pytest.approx(0.9)
    assert watch.numbers() == {"tau": pytest.approx(0.9)}
    watch.seek(3)
    assert module.tau.item() == pytest.approx(0.85)
    assert watch.numbers() == {"tau": pytest.approx(0.9)}


def test_a_second_start_leaves_one_hook():
    module = made("codebook").train()
    watch = watched(module)
    watch.start(module, 0)
    assert len(module._forward_hooks) == 1
    watch.stop()
    assert len(module._forward_hooks) == 0
    assert module(torch.randn(2, WIDTH)).index.shape == (2, 2)


def test_a_missing_library_is_named_with_what_to_install():
    class Callback(base("no_such_library", "no_such_library.callbacks", "Callback")):
        def __init__(self):
            super().__init__()

    with pytest.raises(ImportError, match="needs no_such_library, which is not installed: run pip install no_such_lib"):
        Callback()
