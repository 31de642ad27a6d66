"""Every error names the argument, what it got, what is allowed and what to do."""

import inspect
import linecache
import re
import traceback
import typing
from pathlib import Path

import numpy as np
import pytest
import torch
from bad_values import BAD

import softdraw
from softdraw import indices, losses, relaxations

X = torch.zeros(3, 4)
DRAW, INDEX, NOISE, THROUGH = (
    softdraw.gumbel_softmax,
    softdraw.gumbel_max,
    softdraw.gumbel_noise,
    softdraw.straight_through,
)
FOLD, AT, UNIFORM = softdraw.fold_in, softdraw.noise_at, softdraw.uniform_at
DRAWN = torch.tensor([0, 1, 2])
CASES = [
    (lambda: DRAW(X, 1.0, False, 1e-10), TypeError, ["1e-10", "dim=", "eps"]),
    (lambda: DRAW(X, 1.0, False, -1), TypeError, ["-1", "dim=", "keyword"]),
    (lambda: DRAW(X, eps=1e-10), TypeError, ["eps", "1e-10", "leave it out", "dim"]),
    (lambda: DRAW(X, temperature=2.0), TypeError, ["temperature", "2.0", "tau"]),
    (lambda: DRAW(X, 1.0, -1), TypeError, ["hard", "bool", "int -1", "dim goes by keyword"]),
    (lambda: DRAW(X, hard="yes"), TypeError, ["hard", "bool", "'yes'"]),
    (lambda: DRAW(X, noise="no"), TypeError, ["noise", "bool", "'no'"]),
    (lambda: DRAW(X, noise=False, seed=3), ValueError, ["seed", "noise=False", "int 3", "leave seed out"]),
    (lambda: DRAW(X, noise=False, seed=0), ValueError, ["seed", "noise=False", "int 0"]),
    (lambda: DRAW(X, noise=False, generator=torch.Generator()), ValueError, ["generator", "noise=False"]),
    (lambda: DRAW(X, noise=False, rows=4), ValueError, ["rows", "noise=False", "int 4"]),
    (lambda: DRAW(X, noise=False, rows=torch.arange(3)), ValueError, ["rows", "noise=False", "torch.int64"]),
    (lambda: DRAW(X, dim=None), TypeError, ["dim", "int", "NoneType None"]),
    (lambda: DRAW(X, dim=1.0), TypeError, ["dim", "int", "float 1.0"]),
    (lambda: DRAW(X, dim=(0, 1)), TypeError, ["dim", "int", "tuple (0, 1)"]),
    (lambda: DRAW(X.to_sparse()), TypeError, ["logits", "dense", "torch.sparse_coo", "logits.to_dense()"]),
    (lambda: DRAW(torch.Tensor), TypeError, ["logits", "the class Tensor"]),
    (lambda: INDEX(X, sample_shape=(2**31, 2)), ValueError, ["sample_shape", "2147483647"]),
    (lambda: NOISE((2, 5), seed=0, device="nowhere"), ValueError, ["device", "'nowhere'", "cpu"]),
    (lambda: THROUGH(X.to("meta"), X), ValueError, ["hard", "meta", "cpu", "hard.to(soft.device)"]),
    (lambda: losses.keep_ratio(X, 0.5, dim=7), IndexError, ["dim", "-2 to 1, or None", "(3, 4)", "got 7"]),
    (lambda: losses.entropy(X, dim=None), TypeError, ["dim", "int", "None"]),
    (lambda: losses.entropy(X, reduction=None), ValueError, ["reduction", "'mean', 'sum', 'none'", "None"]),
    (lambda: losses.load_balance(X, torch.arange(3)), ValueError, ["chosen", "(3, 4)", "(3,)", "one_hot"]),
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
    (lambda: DRAW(X, seed=torch.zeros(3, 4, dtype=torch.int64)), TypeError, ["seed", "(3,)", "(3, 4)"]),
    (lambda: NOISE((2, 5), seed=0, stream=2**31 - 1), ValueError, ["stream", "2**31 - 1"]),
    (lambda: NOISE((3, 4), seed=0, logits=X), ValueError, ["index", "given with logits", "None"]),
    (lambda: NOISE((3, 4), seed=0, index=DRAWN), ValueError, ["logits", "given with index", "None"]),
    (
        lambda: NOISE((3, 4), seed=0, logits=X, index=DRAWN, col_start=1),
        ValueError,
        ["col_start", "0 with logits", "1"],
    ),
    (lambda: NOISE((3, 0), seed=0, logits=X[:, :0], index=DRAWN), ValueError, ["shape", "(3, 0)", "one column"]),
    (lambda: NOISE((3, 4), seed=0, logits=X, index=DRAWN + 2), ValueError, ["index", "0 to 3", "2 to 4"]),
    (lambda: AT(DRAWN - 2, seed=0), ValueError, ["index", "4294967295", "-1", "-2 to 0"]),
    (lambda: FOLD(0, 1.5), TypeError, ["ids", "strings", "float 1.5", "number 0"]),
    (lambda: FOLD(0, "a", None), TypeError, ["ids", "NoneType None", "number 1"]),
    (lambda: FOLD(0, True), TypeError, ["ids", "bool True"]),
    (lambda: FOLD(0, torch.tensor([1.0])), TypeError, ["ids", "torch.float32", "number 0"]),
    (lambda: FOLD(0, torch.tensor(True)), TypeError, ["ids", "torch.bool"]),
    (lambda: FOLD(DRAWN, DRAWN.to("meta")), ValueError, ["ids", "meta", "cpu"]),
    (lambda: softdraw.draw_index(X, temperature=-0.5), ValueError, ["temperature", "0 (the argmax)", "-0.5"]),
    (lambda: softdraw.draw_index(X, temperature=torch.tensor(-0.5)), ValueError, ["temperature", "0 (the", "-0.5"]),
    (lambda: softdraw.draw_index(X, top_p=0), ValueError, ["top_p", "at most 1", "got 0"]),
    (lambda: softdraw.draw_index(X, top_p=1.5), ValueError, ["top_p", "at most 1", "got 1.5"]),
    (lambda: softdraw.draw_index(X, top_k=0), ValueError, ["top_k", "at least 1", "got 0"]),
    (lambda: softdraw.draw_index(X, min_p=2), ValueError, ["min_p", "0 to 1", "got 2"]),
    (lambda: softdraw.sinkhorn(X), ValueError, ["scores", "square", "(3, 4)"]),
    (lambda: softdraw.gumbel_topk(X, -1), ValueError, ["k", "at least 0", "got -1"]),
    (lambda: softdraw.gumbel_topk(X, torch.tensor([1, -2, 3])), ValueError, ["k", "0 or more", "got -2"]),
    (lambda: softdraw.multinomial(X - 1, 2), ValueError, ["weights", "0 or more", "-1.0", "logits"]),
    (lambda: softdraw.multinomial(X * float("nan"), 2), ValueError, ["weights", "nan"]),
    (lambda: softdraw.WeightedSampler([1.0, 0.0], 2, False, seed=0), ValueError, ["weights", "2 samples", "got 1"]),
    (lambda: softdraw.WeightedSampler([1.0], 2, seed=0, rank=1), ValueError, ["rank", "together", "ranks=None"]),
    (lambda: THROUGH(X.bool(), X), TypeError, ["hard", "torch.bool", "hard.to(soft.dtype)"]),
    (lambda: THROUGH(X, X.long()), TypeError, ["soft", "torch.int64", "soft.float()"]),
    (lambda: THROUGH(X[:, :1], X), ValueError, ["hard and soft", "(3, 1)", "(3, 4)"]),
]


# What each argument of each function is; `BAD` has the values that are none of it.
CALLS = {
    DRAW: {"logits": X},
    INDEX: {"logits": X},
    NOISE: {"shape": (3, 4), "seed": 0, "logits": X, "index": DRAWN},
    FOLD: {"seed": 0},
    AT: {"index": DRAWN, "seed": 0},
    UNIFORM: {"index": DRAWN, "seed": 0},
    THROUGH: {"hard": X, "soft": X},
    softdraw.draw_index: {"logits": X},
    softdraw.gumbel_topk: {"logits": X, "k": 2},
    softdraw.multinomial: {"weights": X + 1, "n": 2},
    softdraw.WeightedSampler: {"weights": [1.0, 2.0], "num_samples": 2, "seed": 0, "rank": 0, "ranks": 2},
    softdraw.soft_topk: {"logits": X, "k": 2},
    softdraw.linear_draw: {"x": X, "weight": torch.zeros(5, 4), "rule": softdraw.StraightThrough()},
    softdraw.soft_sort: {"scores": X},
    softdraw.neural_sort: {"scores": X},
    softdraw.sinkhorn: {"scores": X[:, :3]},
    softdraw.gumbel_sinkhorn: {"scores": X[:, :3]},
    losses.bernoulli_nll: {"logits": X, "target": X},
    losses.categorical_nll: {"logits": X, "target": torch.tensor([0, 1, 2])},
    losses.kl_to_uniform: {"logits": X},
    losses.kl_to_prior: {"logits": X, "prior_logits": torch.zeros(4)},
    losses.entropy: {"logits": X},
    losses.diversity: {"logits": X},
    losses.load_balance: {"logits": X},
    losses.keep_ratio: {"logits": X, "ratio": 0.5},
    losses.router_z: {"logits": X},
    losses.squared_cv: {"amounts": X, "index": torch.zeros(3, 4, dtype=torch.int64), "experts": 4},
    losses.balanced_kl: dict.fromkeys(("posterior", "prior"), softdraw.OneHotCategorical(torch.zeros(3, 2, 4))),
}
KINDS = {"replacement": "flag", "drop_last": "flag", "n": "count", "num_samples": "count", "ranks": "count"}
KINDS |= {"noise": "flag", "sample_shape": "shape", "soft": "logits", "prior_logits": "prior"}
KINDS |= dict.fromkeys(("free", "dynamics", "representation"), "number from 0") | {"amounts": "logits to draw from"}
KINDS |= {"posterior": "law of latents", "prior": "law of latents", "experts": "count from 1"}
KINDS |= {"scores": "logits to draw from", "logits": "logits to draw from", "mask": "row mask", "weight": "row weight"}
GATES = {"logits": "logits", "mask": "gate mask", "weight": "gate weight", "dim": "dim or None"}
SPECIAL = {
    DRAW: {"mask": "mask", "hard": "flag", "seed": "seed of a draw"},
    INDEX: {"mask": "mask", "seed": "seed of a draw"},
    NOISE: {"logits": "logits of noise", "index": "index of a row"},
    FOLD: {"seed": "seeds"},
    THROUGH: {"hard": "real"},
    softdraw.draw_index: {"mask": "mask", "seed": "seed of a draw"},
    softdraw.gumbel_topk: {"mask": "mask", "seed": "seed of a draw"},
    softdraw.multinomial: {"seed": "seed of a draw"},
    softdraw.WeightedSampler: {"weights": "weights of samples"},
    softdraw.soft_topk: {"mask": "mask", "k": "k of items"},
    **{order: {"mask": "mask"} for order in (softdraw.soft_sort, softdraw.neural_sort, softdraw.sinkhorn)},
    softdraw.linear_draw: {"mask": "mask", "seed": "seed of a draw", "weight": "x", "tau": "tau or None"},
    softdraw.gumbel_sinkhorn: {"mask": "mask", "seed": "seed of a draw"},
    losses.bernoulli_nll: {**GATES, "target": "bits"},
    losses.categorical_nll: {"target": "classes"},
    losses.keep_ratio: GATES,
    losses.squared_cv: {"index": "index of experts"},
}


def arguments():
    for function in CALLS:
        for name, parameter in inspect.signature(function).parameters.items():
            if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                yield function, name


@pytest.mark.parametrize(("function", "name"), list(arguments()), ids=lambda x: getattr(x, "__name__", x))
def test_every_bad_value_is_refused_by_a_sentence_of_ours(function, name):
    """Not only the words: the error must come from a `raise` in this package, not from an operation inside it."""
    kind = SPECIAL.get(function, {}).get(name) or KINDS.get(name, name)
    function(**CALLS[function])
    for value in BAD[kind]:
        with pytest.raises(Exception) as caught:  # noqa: PT011 (the next lines say which)
            function(**{**CALLS[function], name: value})
        about = f"{function.__name__}({name}={value!r}): {caught.value!r}"
        assert caught.type in (TypeError, ValueError, IndexError), about
        message, at = str(caught.value), traceback.extract_tb(caught.tb)[-1]
        assert re.search(rf"\b{name}\b", message), about
        known = inspect.signature(function).parameters
        if "scores" in known:
            assert "logits" not in message, about
        written = re.search(r"write ([\w ]+)\.", message)
        assert not written or written[1] in known or written[1] == "torch", about
        assert re.search(r"got|is on|does not", message), about
        assert "\n" not in message, about
        assert Path(softdraw.__file__).parent in Path(at.filename).parents, about
        assert linecache.getline(at.filename, at.lineno).strip().startswith("raise "), about


def test_every_public_function_is_asked():
    assert {getattr(losses, name) for name in losses.__all__} <= set(CALLS)
    for module in (softdraw.functional, softdraw.keyed):
        assert {getattr(module, name) for name in module.__all__} <= set(CALLS)
    results = {"IndexDraw", "SinkhornPlan"}
    for names in (indices.__all__, relaxations.__all__):
        assert {getattr(softdraw, name) for name in set(names) - results} <= set(CALLS)


def same(a, b):
    assert torch.equal(a, b)


def test_numbers_of_numpy_count_as_numbers():
    x = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    one, two = np.int64(1), np.int32(2)
    for half in (np.float64(0.5), np.float32(0.5), np.float16(0.5)):
        same(DRAW(x, half, seed=1), DRAW(x, 0.5, seed=1))
        same(losses.keep_ratio(x, half), losses.keep_ratio(x, 0.5))
        same(losses.bernoulli_nll(x, x.sigmoid(), half), losses.bernoulli_nll(x, x.sigmoid(), 0.5))
    same(DRAW(x, two, seed=1), DRAW(x, 2, seed=1))
    same(DRAW(x, dim=np.int64(0), seed=one, rows=two, col_start=two), DRAW(x, dim=0, seed=1, rows=2, col_start=2))
    same(INDEX(x, sample_shape=(two, one), seed=one, col_start=two), INDEX(x, sample_shape=(2, 1), seed=1, col_start=2))
    same(INDEX(x, sample_shape=np.array([2, 3]), seed=1), INDEX(x, sample_shape=[2, 3], seed=1))
    same(
        NOISE((two, two), seed=one, rows=two, col_start=one, stream=two),
        NOISE((2, 2), seed=1, rows=2, col_start=1, stream=2),
    )
    same(losses.entropy(x, dim=np.int64(0)), losses.entropy(x, dim=0))
    same(losses.keep_ratio(x, 0.5, dim=np.int64(0)), losses.keep_ratio(x, 0.5, dim=0))
    same(losses.diversity(x, group_dim=np.int64(0)), losses.diversity(x, group_dim=0))


def test_a_shape_may_be_any_iterable_of_sizes():
    assert INDEX(X, sample_shape=(n for n in (2, 3)), seed=0).shape == (2, 3, 3)
    assert NOISE(torch.Size([2, 3]), seed=0).shape == (2, 3)


def test_types_refuse_what_the_call_refuses():
    hints = typing.get_type_hints(DRAW)
    assert hints["misplaced"] is hints["unknown"] is typing.NoReturn  # pyright then flags every value there


def test_a_model_in_evaluation_takes_the_keys_of_training():
    x, ids = torch.randn(3, 4, generator=torch.Generator().manual_seed(0)), torch.tensor([5, 3, 9])
    for mode, want in (("argmax", DRAW(x, hard=True, noise=False)), ("softmax", DRAW(x, 0.5, noise=False))):
        module = softdraw.nn.GumbelSoftmax(0.5, hard=True, eval_mode=mode).eval()
        same(module(x, seed=3, rows=ids), want)
        same(module(x, generator=torch.Generator()), want)
    sampling = softdraw.nn.GumbelSoftmax(0.5, hard=True, eval_mode="sample").eval()
    same(sampling(x, seed=3, rows=ids), DRAW(x, 0.5, True, seed=3, rows=ids))


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
