"""Modules: the functions, with a state that is saved and a train/eval switch that is obeyed."""

import copy
import math

import pytest
import torch
from compilation import fresh, gradient, graphs

import softdraw
from softdraw import schedules
from softdraw.nn import GumbelSoftmax, LearnedTau
from softdraw.schedules import TauScheduler

LOGITS = torch.randn(30, 5, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("hard", [False, True])
def test_training_draws(hard):
    module = GumbelSoftmax(tau=0.4, hard=hard)
    assert torch.equal(module(LOGITS, seed=1), softdraw.gumbel_softmax(LOGITS, 0.4, hard, seed=1))
    assert not torch.equal(module(LOGITS), module(LOGITS))


@pytest.mark.parametrize("hard", [False, True])
def test_evaluation_decides(hard):
    argmax = torch.nn.functional.one_hot(LOGITS.argmax(-1), 5).float()
    assert torch.equal(GumbelSoftmax(0.4, hard).eval()(LOGITS), argmax)
    torch.testing.assert_close(GumbelSoftmax(0.4, hard, eval_mode="softmax").eval()(LOGITS), (LOGITS / 0.4).softmax(-1))
    sample = GumbelSoftmax(0.4, hard, eval_mode="sample").eval()
    assert torch.equal(sample(LOGITS, seed=2), softdraw.gumbel_softmax(LOGITS, 0.4, hard, seed=2))


def test_the_call_overrides():
    module = GumbelSoftmax(tau=0.4)
    assert torch.equal(module(LOGITS, tau=2.0, seed=1), softdraw.gumbel_softmax(LOGITS, 2.0, seed=1))
    assert torch.equal(module(LOGITS, hard=True, seed=1), softdraw.gumbel_softmax(LOGITS, 0.4, True, seed=1))
    assert torch.equal(module(LOGITS, mode="argmax"), module.eval()(LOGITS))
    assert torch.equal(module(LOGITS, mode="sample", seed=1), module.train()(LOGITS, seed=1))
    mask = torch.tensor([True, False, True, True, False])
    rows = torch.arange(7, 37)
    got = GumbelSoftmax(0.4, dim=0)(LOGITS.T, mask=mask[:, None], seed=3, rows=rows)
    assert torch.equal(got, softdraw.gumbel_softmax(LOGITS, 0.4, mask=mask, seed=3, rows=rows).T)


def test_tau_is_saved_and_moves_with_the_module():
    module = GumbelSoftmax(tau=0.4)
    module.tau.fill_(0.7)
    other = GumbelSoftmax()
    other.load_state_dict(module.state_dict())
    assert float(other.tau) == float(copy.deepcopy(module).tau) == pytest.approx(0.7)
    assert module.to("meta").tau.device.type == "meta"
    assert "hard=False, dim=-1, eval_mode='argmax'" in repr(module)


def test_an_annealed_module_compiles_once():
    module = GumbelSoftmax(tau=1.0, hard=True)
    compiled = fresh(module, "aot_eager")
    tau = TauScheduler(module, schedules.exponential(1.0, 0.1, rate=0.3))
    for _ in range(6):
        gradient(compiled, torch.zeros(4, 3))
        tau.step()
    assert tau.get_last_value() < 0.2
    assert graphs() == 1


def test_module_errors():
    with pytest.raises(ValueError, match="tau must be positive and finite, got -1"):
        GumbelSoftmax(tau=-1)
    with pytest.raises(TypeError, match="got LearnedTau: pass what is learned to the call"):
        GumbelSoftmax(tau=LearnedTau())
    with pytest.raises(ValueError, match="eval_mode must be one of 'argmax', 'softmax', 'sample', got 'mean'"):
        GumbelSoftmax(eval_mode="mean")
    with pytest.raises(ValueError, match="mode must be one of"):
        GumbelSoftmax()(LOGITS, mode="hard")
    with pytest.raises(ValueError, match="init > floor"):
        LearnedTau(init=0.1, floor=0.1)


@pytest.mark.parametrize(("init", "floor"), [(1.0, 0.1), (0.5, 0.0), (1e-3, 1e-4), (300.0, 0.5)])
def test_learned_tau(init, floor):
    module = LearnedTau(init, floor)
    assert module().item() == pytest.approx(init, rel=1e-4)
    assert module().shape == (1,)
    with torch.no_grad():
        module.weight.fill_(-1e4)
    assert module().item() == pytest.approx(floor)
    assert module().item() >= torch.tensor(floor).item()
    module = LearnedTau(init, floor).double()
    w = math.log(math.expm1(init - floor)) if init < 100 else init - floor
    module().backward()
    assert module.weight.grad.item() == pytest.approx(1 / (1 + math.exp(-w)), rel=1e-3)
