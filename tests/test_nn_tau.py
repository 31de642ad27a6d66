"""The tau of a module: kept by a forward pass, always float32, assigned, shown, restored, and loaded."""

import copy
import math
import pickle

import numpy as np
import pytest
import torch

import softdraw
from softdraw import schedules
from softdraw.nn import GumbelSoftmax, LearnedTau
from softdraw.schedules import TauScheduler

LOGITS = torch.randn(30, 5, generator=torch.Generator().manual_seed(0))


def test_tau_is_saved_and_moves_with_the_module():
    module = GumbelSoftmax(tau=0.4)
    module.tau.fill_(0.7)
    other = GumbelSoftmax()
    other.load_state_dict(module.state_dict())
    for copied in (other, copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert float(copied.tau) == pytest.approx(0.7)
    assert module.to("meta").tau.device.type == "meta"


WRITES = {
    "scheduler": lambda m: TauScheduler(m, schedules.constant(3.0)),
    "load": lambda m: m.load_state_dict({"tau": torch.tensor(3.0)}),
    "fill": lambda m: m.tau.fill_(3.0),
    "assign": lambda m: setattr(m, "tau", 3.0),
    "cast": lambda m: m.double(),
    "reset": lambda m: m.reset_parameters(),
}


@pytest.mark.parametrize("mode", ["sample", "softmax", "argmax"])
@pytest.mark.parametrize("hard", [False, True])
@pytest.mark.parametrize(("write", "compiled"), [(write, False) for write in WRITES] + [("fill", True)])
def test_backward_has_the_tau_of_the_forward_pass(write, hard, mode, compiled):
    def grad(tau, then):
        module, x = GumbelSoftmax(1.0, hard), LOGITS.clone().requires_grad_()
        module.tau.fill_(tau)
        run = torch.compile(module, backend="aot_eager") if compiled else module
        y = run(x, mode=mode, seed=1)
        then(module)
        (y * LOGITS.flip(0)).sum().backward()
        return x.grad

    assert torch.equal(grad(0.3, WRITES[write]), grad(0.3, lambda m: None))
    assert not torch.equal(grad(0.3, lambda m: None), grad(3.0, lambda m: None))


@pytest.mark.parametrize("hard", [False, True])
def test_two_temperatures_in_one_graph(hard):
    x = LOGITS.double().requires_grad_()
    module = GumbelSoftmax(0.5, hard)
    first = module(x, seed=1)
    module.tau = 0.25
    second = module(x, seed=2)
    got = torch.autograd.grad((first * second).sum(), x)[0]
    first, second = (softdraw.gumbel_softmax(x, tau, hard, seed=i) for i, tau in ((1, 0.5), (2, 0.25)))
    torch.testing.assert_close(got, torch.autograd.grad((first * second).sum(), x)[0])


CASTS = {
    "bfloat16": lambda m: m.bfloat16(),
    "half": lambda m: m.half(),
    "double": lambda m: m.double(),
    "to": lambda m: m.to(torch.float16),
    "to device and dtype": lambda m: m.to("cpu", torch.bfloat16),
    "type": lambda m: m.type(torch.bfloat16),
    "float8": lambda m: m.to(torch.float8_e5m2),
}


@pytest.mark.parametrize("cast", CASTS)
def test_tau_stays_float32(cast):
    model = CASTS[cast](torch.nn.Sequential(torch.nn.Linear(2, 2), GumbelSoftmax(1e-9)))
    assert model[0].weight.dtype != torch.float32
    assert model[1].tau.dtype == torch.float32
    assert model[1].tau.item() == pytest.approx(1e-9)
    scheduler = TauScheduler(model, schedules.linear(1.0, 0.5, 1000))
    taus = {float(model[1].tau)}
    for _ in range(1000):
        scheduler.step()
        taus.add(float(model[1].tau))
    assert len(taus) == 1001
    other = CASTS[cast](torch.nn.Sequential(torch.nn.Linear(2, 2), GumbelSoftmax(1.0)))
    other.load_state_dict(model.state_dict())
    assert other[1].tau.item() == 0.5
    assert copy.deepcopy(other)[1].tau.dtype == torch.float32
    assert CASTS[cast](model).to("meta")[1].tau.dtype == torch.float32
    assert float(model.to_empty(device="cpu")[1].tau) == pytest.approx(1e-9)


def test_a_default_dtype_does_not_touch_tau():
    torch.set_default_dtype(torch.bfloat16)
    try:
        assert GumbelSoftmax(0.7).tau.item() == pytest.approx(0.7)
        assert GumbelSoftmax(0.7).tau.dtype == torch.float32
    finally:
        torch.set_default_dtype(torch.float32)


def test_tau_is_assigned():
    module = GumbelSoftmax()
    buffer = module.tau
    given = [0.3, 2, np.float32(0.3), np.float64(0.3), np.int64(2), torch.tensor(0.3), torch.tensor(2), 1e-50]
    for value in given:
        assert GumbelSoftmax(value).tau.item() == pytest.approx(float(value), rel=1e-6, abs=1e-37)
        module.tau = value
        assert module.tau.item() == pytest.approx(float(value), rel=1e-6, abs=1e-37)
        assert module.tau is buffer
        module.tau.fill_(9.0)
        module.reset_parameters()
        assert module.tau.item() == pytest.approx(float(value), rel=1e-6, abs=1e-37)
    module.tau = 0.5
    module.tau *= 0.5
    assert module.tau is buffer
    assert module.tau.item() == 0.25
    assert list(module.state_dict()) == ["tau"]
    assert "tau" not in vars(module)


def test_tau_is_shown():
    module = GumbelSoftmax(tau=0.3)
    assert repr(module) == "GumbelSoftmax(tau=0.3, hard=False, dim=-1, eval_mode='argmax')"
    TauScheduler(module, schedules.constant(0.125))
    assert "tau=0.125," in repr(torch.nn.Sequential(module))
    assert "tau=<on meta>," in repr(module.to("meta"))
    assert repr(LearnedTau(2.0, 0.1)) == "LearnedTau(init=2, floor=0.1)"


# Deferred initialisation


def materialise_at_once(model):
    model.to_empty(device="cpu")
    for module in model.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()


def materialise_module_by_module(model):  # FSDP's order
    for module in model.modules():
        if any(x.is_meta for x in (*module.parameters(recurse=False), *module.buffers(recurse=False))):
            module.to_empty(device="cpu", recurse=False)
            module.reset_parameters()


@pytest.mark.parametrize("materialise", [materialise_at_once, materialise_module_by_module])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_deferred_initialisation(materialise, dtype):
    with torch.device("meta"):
        model = torch.nn.Sequential(torch.nn.Linear(4, 4), GumbelSoftmax(0.7), GumbelSoftmax(), LearnedTau(0.7)).to(
            dtype
        )
    model[2].tau = 0.2
    materialise(model)
    assert model[1].tau.item() == pytest.approx(0.7)
    assert model[2].tau.item() == pytest.approx(0.2)
    assert model[1].tau.dtype == torch.float32
    assert model[3]().item() == pytest.approx(0.7, rel=1e-6 if dtype == torch.float32 else 1e-2)
    want = softdraw.gumbel_softmax(LOGITS, 0.7, seed=1)
    assert torch.equal(model[1](LOGITS, seed=1), want)


def test_without_reset_tau_is_right_all_the_same():
    with torch.device("meta"):
        module = GumbelSoftmax(0.7)
    assert module.to_empty(device="cpu").tau.item() == pytest.approx(0.7)


@pytest.mark.parametrize("garbage", [math.nan, 0.0, -5.0, math.inf])
def test_garbage_in_tau_is_an_error_of_the_draw(garbage):
    module = GumbelSoftmax()
    module.tau.fill_(garbage)
    for mode in ("sample", "softmax", "argmax"):
        with pytest.raises(ValueError, match="tau must be positive and finite"):
            module(LOGITS, mode=mode)


# Checkpoints


def test_a_checkpoint_from_before_the_module():
    model = torch.nn.ModuleDict({"layer": torch.nn.Linear(2, 2), "draw": GumbelSoftmax(0.7)})
    old = {f"layer.{name}": value for name, value in torch.nn.Linear(2, 2).state_dict().items()}
    kept = dict(old)
    assert model.load_state_dict(old, strict=True) == ([], [])
    assert old == kept  # the caller's own is as it was
    assert model["draw"].tau.item() == pytest.approx(0.7)
    assert torch.equal(model["layer"].weight, old["layer.weight"])
    with pytest.raises(RuntimeError, match=r"Missing key.*layer.weight"):
        model.load_state_dict({})


@pytest.mark.parametrize(("device", "assign"), [("cpu", False), ("cpu", True), ("meta", True)])
@pytest.mark.parametrize("swap", [False, True])
@pytest.mark.parametrize("shape", [(), (1,)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16, torch.float32])
def test_a_checkpoint_of_another_dtype_or_shape(dtype, shape, swap, device, assign):
    with torch.device(device):
        module = GumbelSoftmax(0.7)
    saved = torch.full(shape, 0.3, dtype=dtype)
    torch.__future__.set_swap_module_params_on_conversion(swap)
    try:
        module.load_state_dict({"tau": saved}, assign=assign)
    finally:
        torch.__future__.set_swap_module_params_on_conversion(False)
    assert module.tau.dtype == torch.float32
    assert module.tau.shape == ()
    assert module.tau.item() == saved.float().item()
    module.tau = 0.5
    assert saved.float().item() == pytest.approx(0.3, rel=1e-2)


@pytest.mark.parametrize("assign", [False, True])
def test_a_checkpoint_is_not_what_reset_goes_back_to(assign):
    module = GumbelSoftmax(0.7)
    garbage = torch.tensor(math.nan)  # transformers loads memory without a value where a key is missing
    module.load_state_dict({"tau": garbage}, assign=assign)
    assert module.tau.isnan()
    module.reset_parameters()
    assert module.tau.item() == pytest.approx(0.7)


def test_a_checkpoint_that_does_not_fit():
    with pytest.raises(RuntimeError, match="size mismatch for tau"):
        GumbelSoftmax().load_state_dict({"tau": torch.ones(3)})
