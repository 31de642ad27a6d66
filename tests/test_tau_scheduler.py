"""The scheduler writes values where they belong, says what it cannot write, and survives a restart."""

import copy
import dataclasses
import math
import pickle
from typing import Protocol, runtime_checkable

import numpy as np
import pytest
import torch

import softdraw
from softdraw import schedules
from softdraw.schedules import TauScheduler


class Gate(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.strength = 3.0
        self.draw = softdraw.nn.GumbelSoftmax(tau=0.9)


def test_writes_every_module_and_restarts():
    model = torch.nn.Sequential(Gate(), torch.nn.Linear(2, 2), Gate())
    schedule = schedules.linear(1.0, 0.5, 10)
    scheduler = TauScheduler(model, schedule)
    other = TauScheduler(model, schedules.constant(7.0), attr="strength")
    buffers = [gate.draw.tau for gate in (model[0], model[2])]
    for step in range(5):
        assert scheduler.get_last_value() == schedule(step)
        assert [float(b) for b in buffers] == [pytest.approx(schedule(step))] * 2
        scheduler.step()
    assert model[0].strength == model[2].strength == other.get_last_value() == 7.0
    assert model[0].draw.tau is buffers[0]  # filled in place, so compiled graphs and optimisers keep seeing it
    fresh = torch.nn.Sequential(Gate(), torch.nn.Linear(2, 2), Gate())
    resumed = TauScheduler(fresh, schedule)
    resumed.load_state_dict(scheduler.state_dict())
    assert resumed.get_last_value() == schedule(5)
    assert float(fresh[2].draw.tau) == pytest.approx(schedule(5))
    resumed.step()
    scheduler.step()
    assert resumed.state_dict() == scheduler.state_dict()


def test_finds_modules_inside_wrappers(free_port):
    torch.distributed.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{free_port}", rank=0, world_size=1)
    try:
        gate = Gate()
        gate.layer = torch.nn.Linear(2, 2)
        wrapped = torch.nn.parallel.DistributedDataParallel(gate)
        TauScheduler(wrapped, schedules.constant(0.25))
        assert float(gate.draw.tau) == 0.25
        compiled = torch.compile(wrapped)
        TauScheduler(compiled, schedules.constant(0.125))
        TauScheduler(compiled, schedules.constant(5.0), attr="strength")
        assert float(gate.draw.tau) == 0.125
        assert gate.strength == 5.0
        assert "strength" not in vars(compiled)
    finally:
        torch.distributed.destroy_process_group()


def test_goes_to_a_step():
    gate = Gate()
    scheduler = TauScheduler(gate, schedules.linear(1.0, 0.5, 10))
    for step in (7, 3, np.int64(4), 0):
        scheduler.step(step)
        assert scheduler.last_step == step
        assert type(scheduler.last_step) is int
        assert scheduler.get_last_value() == schedules.linear(1.0, 0.5, 10)(step)
        assert gate.draw.tau.item() == pytest.approx(scheduler.get_last_value())
    scheduler.step()
    assert scheduler.last_step == 1


def scheduled():
    gate = Gate()
    optimizer = torch.optim.SGD(torch.nn.Linear(1, 1).parameters(), 0.25)
    scheduler = TauScheduler(gate, schedules.linear(1.0, 0.5, 10), optimizer=optimizer)
    scheduler.step(4)
    return gate, scheduler


def test_pickles_with_its_target(tmp_path):
    torch.save(scheduled(), tmp_path / "run.pt")
    for gate, scheduler in (
        pickle.loads(pickle.dumps(scheduled())),
        copy.deepcopy(scheduled()),
        torch.load(tmp_path / "run.pt", weights_only=False),
    ):
        assert gate.draw.tau.item() == pytest.approx(0.8)
        scheduler.step()
        assert gate.draw.tau.item() == pytest.approx(0.75)


def spawned(rank, gate, scheduler, queue):
    scheduler.step()
    queue.put((rank, gate.draw.tau.item()))


def test_goes_to_a_spawned_process(ranks_results):
    context = torch.multiprocessing.get_context("spawn")
    queue = context.Queue()
    worker = context.Process(daemon=True, target=spawned, args=(0, *scheduled(), queue))
    assert ranks_results([worker], queue) == [(0, pytest.approx(0.75))]


@runtime_checkable
class Stateful(Protocol):
    def state_dict(self): ...
    def load_state_dict(self, state_dict): ...


def test_is_an_lr_scheduler_for_whoever_asks():
    # What Lightning 2.6 asks in _validate_scheduler_api and _validate_optimizers_attached.
    _, scheduler = scheduled()
    rates = copy.deepcopy(scheduler.optimizer.param_groups[0]["lr"])
    assert isinstance(scheduler, torch.optim.lr_scheduler.LRScheduler)
    assert isinstance(scheduler, Stateful)
    assert scheduler.optimizer in [scheduler.optimizer]
    scheduler.step(None)
    assert scheduler.get_last_lr() == [rates] == [0.25]
    assert TauScheduler(Gate(), schedules.constant(1.0)).optimizer is None
    with pytest.raises(ValueError, match=r"no optimizer.*get_last_value"):
        TauScheduler(Gate(), schedules.constant(1.0)).get_last_lr()


# What can be written, and what cannot


class Held(torch.nn.Module):
    def __init__(self, beta):
        super().__init__()
        self.register_buffer("beta", beta)


def beta_of(dtype, value, start=1.0):
    held = Held(torch.tensor(start).to(dtype))
    TauScheduler(held, schedules.constant(value), attr="beta")
    return held.beta.double().item()


@pytest.mark.parametrize(
    ("dtype", "value", "what"),
    [
        (torch.int64, 0.5, "torch.int64, and a schedule writes floats"),
        (torch.int64, 1.0, "torch.int64, and a schedule writes floats"),
        (torch.uint8, 0.5, "torch.uint8"),
        (torch.bool, 0.5, "torch.bool"),
        (torch.complex64, 0.5, "torch.complex64"),
        (torch.float16, 1e-9, "1e-09 becomes 0.0"),
        (torch.float16, 1e6, "1000000.0 becomes inf"),
        (torch.float16, 1e-7, "1e-07 becomes 1.19"),
        (torch.bfloat16, 1e-60, "1e-60 becomes 0.0"),
        (torch.float32, 1e-60, "1e-60 becomes 0.0"),
        (torch.float32, 1e60, "1e\\+60 becomes inf"),
        (torch.float8_e5m2, 1e-9, "1e-09 becomes 0.0"),
        (torch.float8_e5m2, 1e9, "becomes inf"),
        (torch.float8_e4m3fn, 1e-9, "1e-09 becomes 0.0"),
        (torch.float8_e4m3fn, 1e9, "becomes (448.0|nan)"),
    ],
)
def test_a_buffer_that_cannot_hold_the_value(dtype, value, what):
    with pytest.raises((TypeError, ValueError), match=f"attr 'beta' of Held is a tensor of .*{what}"):
        beta_of(dtype, value)


@pytest.mark.parametrize("value", [0.5, 0.0, -2.0])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_a_buffer_that_can(dtype, value):
    assert beta_of(dtype, value) == value
    assert beta_of(torch.float64, 1e-60) == 1e-60


def test_all_owners_are_written_or_none():
    model = torch.nn.Sequential(Held(torch.tensor(1.0)), Held(torch.tensor(1.0).half()))
    scheduler = TauScheduler(model, schedules.piecewise({0: 1.0, 1: 1e-9}), attr="beta")
    with pytest.raises(ValueError, match=r"torch.float16, where 1e-09 becomes 0.0"):
        scheduler.step()
    assert model[0].beta == 1.0
    assert scheduler.state_dict() == {"last_step": 0, "last_value": 1.0}


def test_any_object_and_properties():
    class Settings:
        beta = 0.0

        def __init__(self):
            self.weight = 1.0
            self.absent = None

    settings = Settings()
    for attr in ("weight", "absent", "beta"):
        TauScheduler(settings, schedules.constant(2.5), attr=attr)
        assert getattr(settings, attr) == 2.5
    assert Settings.beta == 0.0

    class Outer(torch.nn.Module):
        """Shows the tau of its draw, and has a positive weight that a setter writes."""

        def __init__(self):
            super().__init__()
            self.draw = softdraw.nn.GumbelSoftmax()
            self.register_buffer("log_weight", torch.zeros(()))

        @property
        def tau(self):
            return self.draw.tau.clone()

        @property
        def weight(self):
            return self.log_weight.exp()

        @weight.setter
        def weight(self, value):
            self.log_weight.fill_(math.log(value))

    outer = Outer()
    TauScheduler(outer, schedules.constant(0.25))
    assert outer.tau == outer.draw.tau == 0.25
    TauScheduler(outer, schedules.constant(3.0), attr="weight")
    assert outer.weight.item() == pytest.approx(3.0)


class Shows:
    tau = property(lambda self: 1.0)


class Does(torch.nn.Module):
    name = "a"
    on = True

    def tau(self):
        return 1.0


@dataclasses.dataclass(frozen=True)
class Frozen:
    tau: float = 1.0


ONE = schedules.constant(1.0)
ERRORS = [
    (lambda: TauScheduler(torch.nn.Linear(2, 2), ONE), ValueError, ["target", "'tau'", "attr=..."]),
    (lambda: TauScheduler(torch.nn.Linear(2, 2), ONE, attr="weight"), TypeError, ["Linear", "learned"]),
    (lambda: TauScheduler(Held(None), ONE, attr="beta"), TypeError, ["'beta' of Held", "None", "torch.tensor(1.0)"]),
    (lambda: TauScheduler(Held(torch.tensor(1.0).to("meta")), ONE, attr="beta"), ValueError, ["meta", "to_empty()"]),
    (lambda: TauScheduler(Shows(), ONE), TypeError, ["'tau' of Shows", "read-only property"]),
    (lambda: TauScheduler(Frozen(), ONE), TypeError, ["'tau' of Frozen", "cannot be written"]),
    (lambda: TauScheduler(Does(), ONE), TypeError, ["'tau' of Does", "number", "method"]),
    (lambda: TauScheduler(Does(), ONE, attr="name"), TypeError, ["'name' of Does", "number", "'a'"]),
    (lambda: TauScheduler(Does(), ONE, attr="on"), TypeError, ["'on' of Does", "number", "True"]),
    (lambda: TauScheduler(Gate, ONE), TypeError, ["target", "class Gate", "Gate(...)"]),
    (lambda: TauScheduler(None, ONE), ValueError, ["target", "'tau'"]),
    (lambda: TauScheduler(Gate(), 0.5), TypeError, ["schedule", "write schedules.constant(0.5)"]),
    (lambda: TauScheduler(Gate(), None), TypeError, ["schedule", "None"]),
    (lambda: TauScheduler(Gate(), schedules.linear), TypeError, ["schedule", "class linear", "linear(...)"]),
    (lambda: TauScheduler(Gate(), lambda step: None), TypeError, ["at step 0", "None", "return a float"]),
    (lambda: TauScheduler(Gate(), lambda step: math.nan), ValueError, ["nan", "step 0"]),
    (lambda: TauScheduler(Gate(), ONE, attr=3), TypeError, ["attr", "3"]),
    (lambda: TauScheduler(Gate(), ONE, optimizer=0.1), TypeError, ["optimizer", "0.1"]),
    (lambda: TauScheduler(Gate(), ONE).step(-1), ValueError, ["step", "at least 0", "-1"]),
    (lambda: TauScheduler(Gate(), ONE).step(2.5), TypeError, ["step", "int", "2.5"]),
    (lambda: TauScheduler(Gate(), ONE).step(torch.tensor(2)), TypeError, ["step", "int", "tensor"]),
    (lambda: TauScheduler(Gate(), ONE).load_state_dict({}), ValueError, ["last_step", "[]"]),
    (lambda: TauScheduler(Gate(), ONE).load_state_dict({"last_step": None}), TypeError, ["step", "None"]),
    (lambda: TauScheduler(Gate(), ONE).load_state_dict(None), ValueError, ["last_step", "None"]),
]


@pytest.mark.parametrize(("call", "error", "words"), ERRORS)
def test_scheduler_errors(call, error, words):
    with pytest.raises(error) as caught:
        call()
    assert all(word in str(caught.value) for word in words), str(caught.value)
