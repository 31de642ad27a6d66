"""Schedules are closed forms of the step; the scheduler writes them where they belong and survives a restart."""

import math
import re

import pytest
import torch

import softdraw
from softdraw import schedules
from softdraw.schedules import TauScheduler


def test_values():
    linear, cosine = schedules.linear(2.0, 0.5, 100), schedules.cosine(2.0, 0.5, 100)
    exponential = schedules.exponential(1.0, 0.5, 1e-4)
    piecewise = schedules.piecewise({0: 1.0, 10: 0.7, 20: 0.2})
    for step in (0, 1, 9, 10, 19, 20, 50, 99, 100, 101, 6931, 6932, 10**9):
        t = min(step / 100, 1)
        assert schedules.constant(0.3)(step) == 0.3
        assert linear(step) == pytest.approx(2 - 1.5 * t, abs=1e-15)
        assert cosine(step) == pytest.approx(0.5 + 1.5 * (1 + math.cos(math.pi * t)) / 2, abs=1e-15)
        assert exponential(step) == max(math.exp(-1e-4 * step), 0.5)
        assert piecewise(step) == (1.0 if step < 10 else 0.7 if step < 20 else 0.2)
    assert linear(100) == cosine(100) == 0.5  # exactly, not to a rounding error


def test_the_floor_is_reached_where_it_should_be():
    # The case of a compounding schedule that reached .5 at step 11,801: rate 1e-6 reaches it at log(2) / 1e-6.
    tau = schedules.exponential(1.0, 0.5, 1e-6)
    assert tau(693_147) > 0.5
    assert tau(693_148) == 0.5


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: schedules.linear(1, 0, 0), ["steps", "0"]),
        (lambda: schedules.cosine(1, 0, -5), ["steps", "-5"]),
        (lambda: schedules.exponential(1, 0.5, 0), ["rate", "0"]),
        (lambda: schedules.exponential(0.5, 1, 0.1), ["start", "end", "floor"]),
        (lambda: schedules.piecewise({5: 1.0}), ["step 0", "[5]"]),
        (lambda: schedules.piecewise({}), ["step 0"]),
    ],
)
def test_bad_schedules(make, words):
    with pytest.raises(ValueError, match=re.escape(words[0])) as caught:
        make()
    assert all(word in str(caught.value) for word in words)


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


def test_any_object_and_errors():
    class Settings:
        beta = 0.0

        def __init__(self):
            self.weight = 1.0

    settings = Settings()
    TauScheduler(settings, schedules.constant(2.5), attr="weight")
    assert settings.weight == 2.5
    with pytest.raises(ValueError, match="tau"):
        TauScheduler(torch.nn.Linear(2, 2), schedules.constant(1.0))
    with pytest.raises(TypeError, match="learned"):
        TauScheduler(torch.nn.Linear(2, 2), schedules.constant(1.0), attr="weight")
    with pytest.raises(TypeError, match=r"write schedules.constant\(0.5\)"):
        TauScheduler(torch.nn.Linear(2, 2), 0.5, attr="weight")
