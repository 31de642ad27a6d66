"""Schedules are closed forms of the step, and values that can be compared, printed, pickled and compiled."""

import dataclasses
import math
import pickle

import numpy as np
import pytest
import torch
from torch._dynamo.testing import CompileCounter

from softdraw import schedules


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
    # The case of a compounding schedule that reached 0.5 at step 11,801: rate 1e-6 reaches it at log(2) / 1e-6.
    tau = schedules.exponential(1.0, 0.5, 1e-6)
    assert tau(693_147) > 0.5
    assert tau(693_148) == 0.5


SCHEDULES = {
    "constant(value=0.5)": schedules.constant(0.5),
    "linear(start=1.0, end=0.5, steps=10)": schedules.linear(1, 0.5, 10),
    "cosine(start=1.0, end=0.5, steps=10)": schedules.cosine(np.float32(1.0), 0.5, np.int64(10)),
    "exponential(start=1.0, end=0.5, rate=0.1)": schedules.exponential(1, 0.5, 0.1),
    "piecewise(values={0: 1.0, 5: 0.5})": schedules.piecewise({5: 0.5, 0: 1}),
}


@pytest.mark.parametrize("text", SCHEDULES)
def test_schedules_are_values(text):
    schedule = SCHEDULES[text]
    assert repr(schedule) == text
    again = eval(text, vars(schedules))
    copied = pickle.loads(pickle.dumps(schedule))
    assert again == copied == schedule
    assert len({again, copied, schedule}) == 1
    assert schedule not in [other for name, other in SCHEDULES.items() if name != text]
    assert schedule != dataclasses.replace(schedule, **{dataclasses.fields(schedule)[0].name: DIFFERENT.get(text, 2.0)})
    assert [copied(step) for step in range(20)] == [schedule(step) for step in range(20)]
    assert all(type(schedule(step)) is float for step in (0, 3, np.int64(3), 1000))
    assert schedule(np.int64(3)) == schedule(torch.tensor(3)) == schedule(3)
    with pytest.raises(dataclasses.FrozenInstanceError):
        schedule.start = 3.0


DIFFERENT = {"piecewise(values={0: 1.0, 5: 0.5})": {0: 2.0}}


@pytest.mark.parametrize("text", SCHEDULES)
@pytest.mark.parametrize(
    ("step", "error", "words"),
    [
        (-1, ValueError, ["step", "at least 0", "-1"]),
        (-(10**6), ValueError, ["step", "at least 0"]),
        (math.nan, ValueError, ["step", "nan"]),
        (None, TypeError, ["step", "None", "int(step)"]),
        ("3", TypeError, ["step", "'3'", "int(step)"]),
        (True, TypeError, ["step", "True"]),
        (torch.ones(2), TypeError, ["step", "(2,)"]),
        (int, TypeError, ["step", "class int"]),
    ],
)
def test_bad_steps(step, error, words, text):
    with pytest.raises(error) as caught:
        SCHEDULES[text](step)
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_a_schedule_compiles():
    torch._dynamo.reset()
    counter = CompileCounter()
    schedule = schedules.cosine(2.0, 0.5, 100)
    run = torch.compile(lambda x, step: x * schedule(step), backend=counter, fullgraph=True)
    for step in range(1, 6):
        assert run(torch.ones(()), step).item() == pytest.approx(schedule(step))
    assert counter.frame_count <= 2


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: schedules.constant(math.inf), ValueError, ["value", "finite", "inf"]),
        (lambda: schedules.constant("1"), TypeError, ["value", "'1'"]),
        (lambda: schedules.constant(None), TypeError, ["value", "None"]),
        (lambda: schedules.constant(torch.ones(2)), TypeError, ["value", "(2,)"]),
        (lambda: schedules.constant(float), TypeError, ["value", "class float"]),
        (lambda: schedules.linear(1, 0, 0), ValueError, ["steps", "0"]),
        (lambda: schedules.linear(1, 0, None), TypeError, ["steps", "None"]),
        (lambda: schedules.linear(math.nan, 0, 1), ValueError, ["start", "nan"]),
        (lambda: schedules.cosine(1, 0, -5), ValueError, ["steps", "-5"]),
        (lambda: schedules.cosine(1, math.inf, 5), ValueError, ["end", "inf"]),
        (lambda: schedules.exponential(1, 0.5, 0), ValueError, ["rate", "0"]),
        (lambda: schedules.exponential(1, 0.5, "fast"), TypeError, ["rate", "'fast'"]),
        (lambda: schedules.exponential(0.5, 1, 0.1), ValueError, ["start", "end", "floor"]),
        (lambda: schedules.exponential(1, 0, 0.1), ValueError, ["start", "end", "floor"]),
        (lambda: schedules.piecewise({5: 1.0}), ValueError, ["step 0", "[5]"]),
        (lambda: schedules.piecewise({-1: 1.0, 0: 2.0}), ValueError, ["step 0", "[-1, 0]"]),
        (lambda: schedules.piecewise({}), ValueError, ["step 0"]),
        (lambda: schedules.piecewise([1.0, 2.0]), TypeError, ["values", "list", "{0: 1.0}"]),
        (lambda: schedules.piecewise({"0": 1.0}), TypeError, ["step", "'0'"]),
        (lambda: schedules.piecewise({0: None}), TypeError, ["value at step 0", "None"]),
    ],
)
def test_bad_schedules(make, error, words):
    with pytest.raises(error) as caught:
        make()
    assert all(word in str(caught.value) for word in words), str(caught.value)
