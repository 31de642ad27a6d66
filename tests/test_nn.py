"""Modules: the functions, with a state that is saved, that follow train() and eval()."""

import math
import warnings

import numpy as np
import pytest
import torch
from compilation import fresh, gradient, graphs

import softdraw
from softdraw import schedules
from softdraw.nn import GumbelSoftmax, LearnedTau
from softdraw.nn.tau import kept
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


def test_a_seed_may_stay_in_evaluation():
    module = GumbelSoftmax(0.4)
    rows, generator = torch.arange(7, 37), torch.Generator()
    for mode, noiseless in (("argmax", True), ("softmax", False)):
        want = softdraw.gumbel_softmax(LOGITS, 0.4, noiseless, noise=False)
        assert torch.equal(module(LOGITS, mode=mode, seed=1, rows=rows), want)
        assert torch.equal(module(LOGITS, mode=mode, generator=generator), want)


# Compiled, traced, exported


def test_an_annealed_module_compiles_once():
    module = GumbelSoftmax(tau=1.0, hard=True)
    compiled = fresh(module, "aot_eager")
    tau = TauScheduler(module, schedules.exponential(1.0, 0.1, rate=0.3))
    for _ in range(6):
        gradient(compiled, torch.zeros(4, 3))
        tau.step()
    assert tau.get_last_value() < 0.2
    assert graphs() == 1


def test_the_buffer_is_read_anew_by_a_symbolic_trace():
    class Holder(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.draw = GumbelSoftmax(0.5)

        def forward(self, x):
            return kept(self.draw.tau, x) * x

    holder = Holder()
    traced = torch.fx.symbolic_trace(holder)
    traced.draw.tau.fill_(3.0)
    assert torch.equal(traced(LOGITS), 3 * LOGITS)


@pytest.mark.parametrize("mode", ["sample", "softmax", "argmax"])
def test_a_trace_agrees_with_itself(mode):
    module = GumbelSoftmax(0.5, hard=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        traced = torch.jit.trace(lambda x: module(x, mode=mode, seed=torch.tensor(3)), LOGITS)
    torch.testing.assert_close(traced(LOGITS.flip(0)), module(LOGITS.flip(0), mode=mode, seed=3))


@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")
@pytest.mark.parametrize("mask", [None, torch.tensor([True, False, True, True, False])])
@pytest.mark.parametrize("eval_mode", ["argmax", "softmax"])
def test_evaluation_exports_as_torch_alone(eval_mode, mask):
    module = GumbelSoftmax(0.5, eval_mode=eval_mode).eval()
    program = torch.export.export(module, (LOGITS,), {"mask": mask, "seed": torch.tensor(1)})
    names = {str(node.target) for node in program.run_decompositions().graph.nodes}
    torch.testing.assert_close(program.module()(LOGITS, mask=mask, seed=torch.tensor(1)), module(LOGITS, mask=mask))
    assert not [name for name in names if "softdraw" in name]


def test_functional_call_learns_tau():
    module, tau = GumbelSoftmax(0.5), torch.tensor(0.7, requires_grad=True)
    y = torch.func.functional_call(module, {"tau": tau}, (LOGITS,), {"seed": 1})
    y.pow(2).sum().backward()
    other = torch.tensor(0.7, requires_grad=True)
    softdraw.gumbel_softmax(LOGITS, other, seed=1).pow(2).sum().backward()
    torch.testing.assert_close(tau.grad, other.grad)
    assert module.tau.item() == 0.5


def test_two_modules_under_one_seed():
    first, second = GumbelSoftmax(), GumbelSoftmax()
    assert torch.equal(first(LOGITS, seed=1), second(LOGITS, seed=1))  # as documented
    seeds = torch.randint(2**63 - 1, (2,), generator=torch.Generator().manual_seed(0))
    zeros = torch.zeros(20_000, 2)
    a, b = (module(zeros, hard=True, seed=s)[:, 0] for module, s in zip((first, second), seeds, strict=True))
    # Independent fair coins agree half of the time: 5 standard deviations of the mean are 0.018.
    assert abs((a == b).double().mean().item() - 0.5) < 0.018
    ids = torch.arange(20_000)
    a, b = (module(zeros, hard=True, seed=1, rows=2 * ids + i)[:, 0] for i, module in enumerate((first, second)))
    assert abs((a == b).double().mean().item() - 0.5) < 0.018


# Errors

ERRORS = [
    (lambda: GumbelSoftmax(tau=-1), ValueError, ["tau", "positive and finite", "got -1"]),
    (lambda: GumbelSoftmax(tau=0), ValueError, ["tau", "got 0"]),
    (lambda: GumbelSoftmax(tau=math.nan), ValueError, ["tau", "got nan"]),
    (lambda: GumbelSoftmax(tau=math.inf), ValueError, ["tau", "got inf"]),
    (lambda: GumbelSoftmax(tau=10**400), ValueError, ["tau", "float can hold"]),
    (lambda: GumbelSoftmax(tau=None), TypeError, ["tau", "None", "float"]),
    (lambda: GumbelSoftmax(tau="1"), TypeError, ["tau", "'1'", "float"]),
    (lambda: GumbelSoftmax(tau=True), TypeError, ["tau", "True", "float"]),
    (lambda: GumbelSoftmax(tau=1j), TypeError, ["tau", "complex"]),
    (lambda: GumbelSoftmax(tau=torch.tensor(True)), TypeError, ["tau", "True"]),
    (lambda: GumbelSoftmax(LOGITS), TypeError, ["tau", "(30, 5)", "GumbelSoftmax()(logits)"]),
    (lambda: GumbelSoftmax(tau=LearnedTau()), TypeError, ["tau", "LearnedTau", "to the call, tau=..."]),
    (lambda: GumbelSoftmax(tau=LearnedTau()()), TypeError, ["tau", "(1,)", "to the call, tau=..."]),
    (lambda: GumbelSoftmax(tau=torch.nn.Parameter(torch.tensor(1.0))), TypeError, ["tau", "to the call, tau=..."]),
    (lambda: GumbelSoftmax(tau=LearnedTau), TypeError, ["tau", "class LearnedTau"]),
    (lambda: GumbelSoftmax(1.0, -1), TypeError, ["hard", "bool", "-1", "dim=..."]),
    (lambda: GumbelSoftmax(hard="yes"), TypeError, ["hard", "bool", "'yes'"]),
    (lambda: GumbelSoftmax(hard=None), TypeError, ["hard", "bool", "None"]),
    (lambda: GumbelSoftmax(dim=1.0), TypeError, ["dim", "int", "1.0"]),
    (lambda: GumbelSoftmax(dim=None), TypeError, ["dim", "int", "None"]),
    (lambda: GumbelSoftmax(dim=(0, 1)), TypeError, ["dim", "int", "tuple"]),
    (lambda: GumbelSoftmax(eval_mode="mean"), ValueError, ["eval_mode", "'argmax', 'softmax', 'sample'", "'mean'"]),
    (lambda: GumbelSoftmax(eval_mode=None), ValueError, ["eval_mode", "None"]),
    (lambda: GumbelSoftmax()(LOGITS, mode="hard"), ValueError, ["mode", "'hard'"]),
    (lambda: GumbelSoftmax()(LOGITS, hard=1), TypeError, ["hard", "bool", "1"]),
    (lambda: GumbelSoftmax()(None), TypeError, ["logits", "NoneType"]),
    (lambda: GumbelSoftmax(dim=2)(LOGITS), IndexError, ["dim", "-2 to 1", "got 2"]),
    (lambda: setattr(GumbelSoftmax(), "tau", 0.0), ValueError, ["tau", "got 0.0"]),
    (lambda: setattr(GumbelSoftmax(), "tau", None), TypeError, ["tau", "None"]),
    (lambda: setattr(GumbelSoftmax(), "tau", "low"), TypeError, ["tau", "'low'"]),
    (lambda: setattr(GumbelSoftmax(), "tau", torch.ones(2)), TypeError, ["tau", "(2,)"]),
    (lambda: setattr(GumbelSoftmax(), "tau", torch.nn.Parameter(torch.tensor(1.0))), TypeError, ["tau", "to the call"]),
    (lambda: setattr(GumbelSoftmax(), "tau", LearnedTau()), TypeError, ["tau", "LearnedTau", "to the call"]),
    (lambda: LearnedTau(init=0.1, floor=0.1), ValueError, ["init > floor", "init=0.1", "floor=0.1"]),
    (lambda: LearnedTau(init=math.nan), ValueError, ["init", "nan"]),
    (lambda: LearnedTau(floor=-1.0), ValueError, ["floor >= 0", "floor=-1.0"]),
    (lambda: LearnedTau("1"), TypeError, ["init", "'1'"]),
    (lambda: LearnedTau(None), TypeError, ["init", "None"]),
    (lambda: LearnedTau(1.0, torch.ones(2)), TypeError, ["floor", "(2,)"]),
    (lambda: LearnedTau(float), TypeError, ["init", "class float"]),
]


@pytest.mark.parametrize(("call", "error", "words"), ERRORS)
def test_module_errors(call, error, words):
    with pytest.raises(error) as caught:
        call()
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_a_refused_tau_changes_nothing():
    module = GumbelSoftmax(0.5)
    for value in (0.0, "low", None, torch.ones(2)):
        with pytest.raises((TypeError, ValueError)):
            module.tau = value
    assert module.tau.item() == 0.5
    module.reset_parameters()
    assert module.tau.item() == 0.5


@pytest.mark.parametrize(("init", "floor"), [(1.0, 0.1), (0.5, 0.0), (1e-3, 1e-4), (300.0, 0.5)])
def test_learned_tau(init, floor):
    module = LearnedTau(init, floor)
    assert module().item() == pytest.approx(init, rel=1e-4)
    assert module().shape == (1,)
    with torch.no_grad():
        module.weight.fill_(-1e4)
    assert module().item() == pytest.approx(floor)
    assert module().item() >= torch.tensor(floor).item()
    for dtype in (torch.bfloat16, torch.float16):
        half = LearnedTau(init, floor).to(dtype)
        assert half().dtype == torch.float32
        assert half().item() == pytest.approx(floor + math.log1p(math.exp(half.weight.item())), rel=1e-5)
    module = LearnedTau(np.float32(init), torch.tensor(floor)).double()
    w = math.log(math.expm1(init - floor)) if init < 100 else init - floor
    module().backward()
    assert module.weight.grad.item() == pytest.approx(1 / (1 + math.exp(-w)), rel=1e-3)


def test_a_name_is_folded_into_a_given_seed():
    named = GumbelSoftmax(0.5, name="encoder.0")
    assert torch.equal(named(LOGITS, seed=3), GumbelSoftmax(0.5)(LOGITS, seed=softdraw.fold_in(3, "encoder.0")))
    assert not torch.equal(named(LOGITS, seed=3), GumbelSoftmax(0.5, name="encoder.1")(LOGITS, seed=3))
    generators = [torch.Generator().manual_seed(0) for _ in range(2)]
    drawn = (module(LOGITS, generator=g) for module, g in zip((named, GumbelSoftmax(0.5)), generators, strict=True))
    assert torch.equal(*drawn)  # a fresh seed is not changed
    assert "name='encoder.0'" in repr(named)
    for wrong, error in ((3, TypeError), ("", ValueError)):
        with pytest.raises(error, match=r"name must .*got"):
            GumbelSoftmax(name=wrong)
