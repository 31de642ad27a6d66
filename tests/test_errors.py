"""Every error names the argument, what it got, what is allowed and what to do."""

import pytest
import torch

import softdraw

X = torch.zeros(3, 4)
DRAW, INDEX, NOISE, THROUGH = (
    softdraw.gumbel_softmax,
    softdraw.gumbel_max,
    softdraw.gumbel_noise,
    softdraw.straight_through,
)
CASES = [
    (lambda: DRAW(X, 1.0, False, 1e-10), TypeError, ["1e-10", "dim=", "eps"]),
    (lambda: DRAW(X, 1.0, False, -1), TypeError, ["-1", "dim=", "keyword"]),
    (lambda: DRAW([1.0, 2.0]), TypeError, ["logits", "list", "torch.tensor"]),
    (lambda: DRAW(X.long()), TypeError, ["logits", "torch.int64", "logits.float()"]),
    (lambda: DRAW(X.bool()), TypeError, ["logits", "torch.bool", "logits.float()"]),
    (lambda: DRAW(X.cfloat()), TypeError, ["logits", "torch.complex64", "real part"]),
    (lambda: DRAW(torch.tensor(1.0)), ValueError, ["logits", "0-d", "(..., K)"]),
    (lambda: DRAW(torch.zeros(3, 0)), ValueError, ["logits", "(3, 0)", "at least one category"]),
    (lambda: DRAW(X, dim=2), IndexError, ["dim", "-2 to 1", "(3, 4)", "got 2"]),
    (lambda: DRAW(X, dim=-3), IndexError, ["dim", "got -3"]),
    (lambda: DRAW(X, 0), ValueError, ["tau", "positive", "got 0"]),
    (lambda: DRAW(X, -1.0), ValueError, ["tau", "positive", "got -1.0"]),
    (lambda: DRAW(X, float("nan")), ValueError, ["tau", "got nan"]),
    (lambda: DRAW(X, float("inf")), ValueError, ["tau", "finite", "got inf"]),
    (lambda: DRAW(X, "1"), TypeError, ["tau", "str"]),
    (lambda: DRAW(X, True), TypeError, ["tau", "bool"]),
    (lambda: DRAW(X, torch.tensor(1)), TypeError, ["tau", "torch.int64", "tau.float()"]),
    (lambda: DRAW(X, torch.tensor(-0.5)), ValueError, ["tau", "positive", "-0.5", "LearnedTau"]),
    (lambda: DRAW(X, torch.tensor([[1.0], [0.0], [2.0]]), True), ValueError, ["tau", "positive", "0.0"]),
    (lambda: DRAW(X, torch.tensor(float("nan"))), ValueError, ["tau", "nan"]),
    (lambda: DRAW(X, torch.ones(3)), ValueError, ["tau", "(3,)", "(3, 4)", "(3, 1)", "unsqueeze"]),
    (lambda: DRAW(X, torch.ones(4)), ValueError, ["tau", "(4,)", "(3, 1)"]),
    (lambda: DRAW(X, torch.ones(2, 3, 1)), ValueError, ["tau", "(2, 3, 1)", "(3, 1)"]),
    (lambda: DRAW(X, mask=torch.ones(3, 4)), TypeError, ["mask", "torch.float32", "mask.bool()"]),
    (lambda: DRAW(X, mask=[True]), TypeError, ["mask", "list"]),
    (lambda: DRAW(X, mask=torch.ones(3, dtype=torch.bool)), ValueError, ["mask", "(3,)", "(3, 4)", "broadcast"]),
    (lambda: DRAW(X, mask=torch.ones(2, 3, 4, dtype=torch.bool)), ValueError, ["mask", "(2, 3, 4)"]),
    (lambda: DRAW(X, mask=torch.ones(4, dtype=torch.bool, device="meta")), ValueError, ["mask", "meta", "cpu"]),
    (lambda: DRAW(X, seed=1.5), TypeError, ["seed", "float"]),
    (lambda: DRAW(X, seed=True), TypeError, ["seed", "bool"]),
    (lambda: DRAW(X, seed=2**64), ValueError, ["seed", "64 bits", str(2**64)]),
    (lambda: DRAW(X, seed=torch.tensor([1])), TypeError, ["seed", "0-d int64", "(1,)"]),
    (lambda: DRAW(X, seed=torch.tensor(1.0)), TypeError, ["seed", "0-d int64", "torch.float32"]),
    (lambda: DRAW(X, seed=1, generator=torch.Generator()), ValueError, ["seed", "generator", "one of them"]),
    (lambda: DRAW(X, generator=1), TypeError, ["generator", "int", "seed="]),
    (lambda: DRAW(X.to("meta"), generator=torch.Generator()), ValueError, ["generator", "cpu", "meta"]),
    (lambda: DRAW(X, rows=1.0), TypeError, ["rows", "float"]),
    (lambda: DRAW(X, rows=-1), ValueError, ["rows", "got -1"]),
    (lambda: DRAW(X, rows=2**63 - 1), ValueError, ["rows", "2**63"]),
    (lambda: DRAW(X, rows=torch.zeros(3)), TypeError, ["rows", "torch.float32", "rows.long()"]),
    (lambda: DRAW(X, rows=torch.zeros(4, dtype=torch.int64)), ValueError, ["rows", "(4,)", "(3,)"]),
    (lambda: DRAW(X, rows=torch.tensor(7)), ValueError, ["rows", "()", "(3,)", "int"]),
    (lambda: INDEX(X, sample_shape=3), TypeError, ["sample_shape", "3", "(3,)"]),
    (lambda: INDEX(X, sample_shape=(-1,)), TypeError, ["sample_shape", "(-1,)"]),
    (lambda: INDEX(X.int()), TypeError, ["logits", "torch.int32"]),
    (lambda: NOISE((), seed=0), ValueError, ["shape", "()"]),
    (lambda: NOISE(5, seed=0), TypeError, ["shape", "(5,)"]),
    (lambda: NOISE((2, 5), seed=None), TypeError, ["seed"]),
    (lambda: NOISE((2, 5), seed=0, col_start=2**32 - 4), ValueError, ["col_start", "2**32", str(2**32 - 4)]),
    (lambda: NOISE((2, 5), seed=0, col_start=-1), ValueError, ["col_start", "-1"]),
    (lambda: NOISE((2, 5), seed=0, col_start=1.0), TypeError, ["col_start", "int", "1.0"]),
    (lambda: DRAW(X, col_start=2**32 - 2), ValueError, ["col_start", "2**32", "4 columns", str(2**32 - 2)]),
    (lambda: DRAW(X, col_start=True), TypeError, ["col_start", "int", "True"]),
    (lambda: DRAW(X, col_start=0.0), TypeError, ["col_start", "int", "0.0"]),
    (lambda: INDEX(X, col_start=torch.tensor(0)), TypeError, ["col_start", "int", "tensor(0)"]),
    (lambda: INDEX(X, col_start=-4), ValueError, ["col_start", "-4"]),
    (lambda: NOISE((2, 5), seed=0, stream=2**31), ValueError, ["stream", "2**31 - 1"]),
    (lambda: NOISE((2, 5), seed=0, dtype=torch.int64), TypeError, ["dtype", "torch.int64"]),
    (lambda: THROUGH(X.bool(), X), TypeError, ["hard", "torch.bool", "hard.to(soft.dtype)"]),
    (lambda: THROUGH(X, X.long()), TypeError, ["soft", "torch.int64", "soft.float()"]),
    (lambda: THROUGH(X[:, :1], X), ValueError, ["hard and soft", "(3, 1)", "(3, 4)"]),
]


@pytest.mark.parametrize(("call", "error", "words"), CASES)
def test_error_says_what_and_what_to_do(call, error, words):
    with pytest.raises(error) as caught:
        call()
    message = str(caught.value)
    assert [word for word in words if word not in message] == []
    assert "\n" not in message


def test_a_refused_call_leaves_the_generator_alone():
    state = torch.get_rng_state()
    for bad in ({"mask": X}, {"rows": -1}, {"dim": 5}):
        with pytest.raises((TypeError, ValueError, IndexError)):
            softdraw.gumbel_softmax(X, **bad)
    assert torch.equal(torch.get_rng_state(), state)
