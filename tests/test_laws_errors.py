"""Every argument of the laws, their methods, their rules and the two verbs: what is none of it is refused by us."""

import linecache
import math
import re
import traceback
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from bad_values import BAD, META, NOT_A_NUMBER, NOT_A_TENSOR, NOT_AN_INT, layouts, no_numbers
from torch import distributions as td
from torch.testing import assert_close

import softdraw
from softdraw import rules

X = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
ZGR, RELAXED = softdraw.ZGR(), softdraw.RelaxedOneHotCategorical(0.7, X)
LAWS = {"one-hot": softdraw.OneHotCategorical(X), "bits": softdraw.Bernoulli(X), "relaxed": RELAXED}
EVENTS = {"one-hot": softdraw.OneHotCategorical, "relaxed": partial(softdraw.RelaxedOneHotCategorical, 0.7)}
MAKE = {**EVENTS, "bits": softdraw.Bernoulli}
NAN, INF = math.nan, math.inf


@pytest.fixture(autouse=True)
def _validation():
    """torch's setting as it is at the start: any use of torch.compile turns it off for the whole process."""
    default = td.Distribution._validate_args
    td.Distribution.set_default_validate_args(True)
    yield
    td.Distribution.set_default_validate_args(default)


def first(y):
    return y[..., 0]


def refused(call, value, name):
    """The call raises one sentence from a `raise` in this package, and it names the argument."""
    with pytest.raises(Exception) as caught:  # noqa: PT011 (the next lines say which)
        call(value)
    about = f"{name}={value!r}: {caught.value!r}"
    message, at = str(caught.value), traceback.extract_tb(caught.tb)[-1]
    assert caught.type in (TypeError, ValueError, IndexError), about
    assert re.search(rf"\b{name}\b", message), about
    assert "\n" not in message, about
    assert Path(softdraw.__file__).parent in Path(at.filename).parents, about
    assert linecache.getline(at.filename, at.lineno).strip().startswith("raise "), about


VALUES = [*NOT_A_TENSOR, *layouts(X), META, *no_numbers(3, 4), torch.zeros(7, 4), torch.zeros(5, 3, 5), X * NAN]
RULES = [1, "zgr", True, softdraw.ZGR, softdraw.LeaveOneOut(), softdraw.LeaveOneOut, [ZGR], X, object()]
SETTINGS = ["yes", "no", 1, 0, [], np.bool_(True), torch.tensor(True), bool]
GRADS = [None, *NOT_A_TENSOR, *layouts(X), META, torch.zeros(7), torch.zeros(3, 5), *no_numbers(3, 4)]
INDICES = ["a", 1.5, 5, -9, (0, 0, 0), slice(0, 2, 0), slice("a"), {}, [7], ["a"], X, torch.tensor([9]), np.array(9)]
STATES = [None, *NOT_A_TENSOR, X, X.bool(), torch.tensor([9]), torch.tensor([-1]), torch.arange(3).to_sparse()]
# A law's tau has the shape of its batch, a rule's that of the logits with one category.
TAUS = [v for v in BAD["tau"] if not isinstance(v, torch.Tensor) or not v.dim()]
WEIGHTS = [None, *NOT_A_NUMBER, NAN, INF, 10**400, *layouts(X)]
COUNTS = [None, *NOT_AN_INT, 0, -1]


def of_construction(kind, make):
    tensors = BAD["logits"] if kind == "bits" else BAD["logits to draw from"]
    yield "logits", make, [v for v in tensors if v is not None]
    yield "probs", lambda v: make(probs=v), [*[v for v in tensors if v is not None], -X.abs(), X * NAN, X * INF]
    yield "probs", lambda v: make(probs=v), [X.exp().to(torch.float8_e4m3fn), X.exp().to(torch.float8_e5m2)]
    yield "logits or probs", lambda v: make(X, probs=v), [X.exp()]
    yield "logits or probs", make, [None]
    yield "mask", lambda v: make(X, v), BAD["mask"]
    yield "validate_args", lambda v: make(X, validate_args=v), SETTINGS
    yield "logits", lambda v: make(v, validate_args=True), [X * NAN]


def of_a_mixture():
    yield "uniform", lambda v: softdraw.OneHotCategorical(X, uniform=v), [None, *NOT_A_NUMBER, -0.1, 1, 1.5, NAN, X]


def of_a_subset():
    yield "logits", lambda v: softdraw.Subset(v, 2), BAD["logits to draw from"]
    yield "k", lambda v: softdraw.Subset(X, v), BAD["k"]
    yield "mask", lambda v: softdraw.Subset(X, 2, v), BAD["mask"]
    yield "validate_args", lambda v: softdraw.Subset(X, 2, validate_args=v), SETTINGS
    yield "logits", lambda v: softdraw.Subset(v, 2, validate_args=True), [X * NAN]


def of_orders():
    yield "logits", softdraw.PlackettLuce, BAD["logits to draw from"]
    yield "length", lambda v: softdraw.PlackettLuce(X, v), [*[v for v in BAD["count"] if v is not None], 5]
    yield "mask", lambda v: softdraw.PlackettLuce(X, 2, v), BAD["mask"]
    yield "validate_args", lambda v: softdraw.PlackettLuce(X, validate_args=v), SETTINGS
    yield "logits", lambda v: softdraw.PlackettLuce(v, validate_args=True), [X * NAN]
    law = softdraw.PlackettLuce(X, 1)
    yield "rule", lambda v: law.rsample(rule=v), [*RULES, None]
    yield "value", law.scores_given, [None, *VALUES, torch.zeros((), dtype=torch.int64)]
    yield "value", law.matrix, [None, *NOT_A_TENSOR, *layouts(X)]
    yield "index", law.__getitem__, INDICES
    yield "index", law.state, STATES
    yield "expand", law.enumerate_support, BAD["flag"]
    yield "tau", law.tempered, [v for v in TAUS if not isinstance(v, torch.Tensor) or v.is_meta or v > 0]


def of_every_law(law):
    yield "batch_shape", law.expand, [*BAD["shape"], (2,), (2, 3, 5), (-1, *law.batch_shape), ()]
    yield "value", law.log_prob, [None, *VALUES]
    for draw in (law.sample,) if isinstance(law, softdraw.PlackettLuce) else (law.sample, law.rsample):
        yield "sample_shape", draw, BAD["shape"]
        yield "seed", lambda v, draw=draw: draw(seed=v), BAD["seed of a draw"]
        yield "generator", lambda v, draw=draw: draw(generator=v), BAD["generator"]
        yield "rows", lambda v, draw=draw: draw(rows=v), [v for v in BAD["rows"] if not _ids(v, law)]


def _ids(rows, law):
    """Whether these are ids for the batch of this law."""
    return isinstance(rows, torch.Tensor) and rows.dtype == torch.int64 and rows.shape == law.batch_shape[: rows.dim()]


def of_a_law_with_rules(law, make):
    yield "rule", lambda v: make(X, rule=v), RULES
    yield "rule", lambda v: law.rsample(rule=v), RULES
    yield "value", lambda v: law.rsample(value=v), [*VALUES, torch.zeros(())]
    yield "index", law.__getitem__, INDICES
    yield "index", law.state, STATES
    yield "expand", law.enumerate_support, BAD["flag"]
    yield "grad", law.covariance_product, GRADS
    yield "tau", law.tempered, [v for v in TAUS if not isinstance(v, torch.Tensor) or v.is_meta or v > 0]


def _is_negative(tau):
    """Whether this is the tensor whose value is checked where it is used, not where the law is made."""
    return isinstance(tau, torch.Tensor) and tau.is_floating_point() and not tau.is_meta


def of_the_relaxed_law():
    make = softdraw.RelaxedOneHotCategorical
    yield "tau", lambda v: make(v, X), [v for v in TAUS if v is not None and not _is_negative(v)]
    yield "tau", lambda v: make(v, X), [None, torch.ones(7), torch.ones(3, 1), *layouts(torch.ones(3))]
    yield "temperature", lambda v: make(0.5, X, temperature=v), [0.5]
    for bad in (torch.tensor(-1.0), torch.tensor(NAN), torch.tensor([1.0, 0.0, 2.0]), torch.tensor(INF)):
        law = make(bad, X)
        for use in (law.sample, law.rsample, law.rsample_log):
            yield "tau", lambda v, use=use: use(v), [()]
        for use in (law.log_prob, law.log_prob_log):
            yield "tau", use, [X.softmax(-1)]
    yield "log_value", RELAXED.log_prob_log, [None, *VALUES[:-1]]
    yield "sample_shape", RELAXED.rsample_log, BAD["shape"]


def of_the_verbs():
    law = softdraw.OneHotCategorical(X)
    laws = [None, 1, "a", softdraw.OneHotCategorical, ZGR, softdraw.ZGR, td.Normal(0.0, 1.0), RELAXED, [1.0], object()]
    laws.append(td.Independent(td.Normal(X, 1.0), 1))
    yield "law", softdraw.draw, laws
    yield "logits", softdraw.draw, layouts(X)
    yield "rule", lambda v: softdraw.draw(law, v), RULES
    yield "sample_shape", lambda v: softdraw.draw(law, ZGR, v), BAD["shape"]
    yield "law", lambda v: softdraw.expect(first, v, ZGR), laws
    yield "f", lambda v: softdraw.expect(v, law, ZGR), [None, 1, "a", X]
    yield "f", lambda v: softdraw.expect(lambda y: v, law, ZGR), [None, "a", object(), X.cfloat()[:, 0], X]
    yield "rule", lambda v: softdraw.expect(first, law, v), [1, "a", softdraw.ZGR, softdraw.LeaveOneOut, X]
    yield "samples", lambda v: softdraw.expect(first, law, ZGR, samples=v), [0, -1, *NOT_AN_INT]
    yield "samples", lambda v: softdraw.expect(first, law, softdraw.LeaveOneOut(), samples=v), [3]
    yield "seed", lambda v: softdraw.expect(first, law, softdraw.LeaveOneOut(), seed=v), BAD["seed of a draw"]
    yield "rows", lambda v: softdraw.expect(first, law, softdraw.LeaveOneOut(), rows=v), BAD["rows"]


def of_the_rules():
    for name in rules.__all__:
        rule = getattr(rules, name)
        for field in getattr(rule, "__dataclass_fields__", ()):
            if field in ("samples", "pairs", "summed", "limit", "chunk"):
                yield field, lambda v, rule=rule, field=field: _made(rule, **{field: v}), COUNTS
            if field in ("tau", "backward_tau"):
                bad = [v for v in TAUS if v is not None and (not isinstance(v, torch.Tensor) or v.dtype == torch.long)]
                if rule is softdraw.IMLE:  # whose tau scales noise and may be 0
                    bad = [v for v in bad if not (type(v) in (int, float) and v == 0)]
                yield (
                    field,
                    lambda v, rule=rule, field=field: _made(rule, **{field: v}),
                    [*bad, *layouts(torch.ones(3, 1))],
                )
            if field in ("baseline", "eta"):
                yield field, lambda v, rule=rule, field=field: rule(**{field: v}), WEIGHTS
                for weight in (torch.zeros(7), torch.zeros(5, 3), torch.zeros(2, 1, 3), torch.zeros(3, device="meta")):
                    yield field, lambda v, rule=rule, field=field: _estimated(rule(**{field: v})), [weight]
    yield "gap", lambda v: softdraw.GappedStraightThrough(gap=v), [None, *NOT_A_NUMBER, -1.0, NAN, INF, 10**400, X]
    yield "control", lambda v: softdraw.Relax(control=v), [None, 1, "a", X]
    for control in (lambda y: None, lambda y: y, lambda y: first(y).detach(), lambda y: 0.5, lambda y: y.sum()):
        yield "control", lambda v: _estimated(softdraw.Relax(control=v)), [control]
    yield "control", lambda v: _estimated(v, lambda y: y.detach().numpy()[..., 0]), [softdraw.Rebar()]


def _made(rule, **settings):
    return rule(control=first, **settings) if rule is softdraw.Relax else rule(**settings)


def _estimated(rule, f=first):
    return softdraw.expect(f, softdraw.OneHotCategorical(X.clone().requires_grad_()), rule)


GROUPS = {f"{kind}: construction": lambda k=kind: of_construction(k, MAKE[k]) for kind in MAKE}
GROUPS |= {f"{kind}: methods": lambda k=kind: of_every_law(LAWS[k]) for kind in MAKE}
GROUPS |= {f"{k}: rules": lambda k=k: of_a_law_with_rules(LAWS[k], MAKE[k]) for k in ("one-hot", "bits")}
SUBSET = softdraw.Subset(X, 2)
GROUPS |= {
    "mixture: construction": lambda: of_a_mixture(),
    "subset: construction": lambda: of_a_subset(),
    "subset: methods": lambda: of_every_law(SUBSET),
    "subset: rules": lambda: of_a_law_with_rules(SUBSET, lambda x, **named: softdraw.Subset(x, 2, **named)),
}
GROUPS |= {"orders": of_orders, "orders: methods": lambda: of_every_law(softdraw.PlackettLuce(X))}
GROUPS |= {"the relaxed law": of_the_relaxed_law, "the verbs": of_the_verbs, "the rules": of_the_rules}


@pytest.mark.parametrize("group", GROUPS.values(), ids=GROUPS)
def test_what_is_no_such_argument_is_refused_by_a_sentence_of_ours(group):
    for name, call, values in group():
        for value in values:
            refused(call, value, name)


# What is right


def test_values_broadcast_with_the_batch():
    """As torch's: a support that is not expanded, one sample for all rows, and a batch of laws for one sample."""
    for ours, theirs in ((LAWS["one-hot"], td.OneHotCategorical(logits=X)), (LAWS["bits"], td.Bernoulli(logits=X))):
        for value in (
            ours.enumerate_support(expand=False),
            ours.enumerate_support(),
            ours.sample(seed=0)[:1],
            ours.sample((2,), seed=0),
        ):
            assert_close(ours.log_prob(value), theirs.log_prob(value))
        one, other = ours[:1], type(theirs)(logits=X[:1])
        assert_close(one.log_prob(ours.sample(seed=1)), other.log_prob(ours.sample(seed=1)))
    masked = softdraw.OneHotCategorical(X, torch.tensor([True, False, True, True]))
    assert_close(masked.log_prob(masked.enumerate_support(expand=False)).exp().sum(0), torch.ones(3))
    y = RELAXED.sample(seed=0)
    assert_close(RELAXED.log_prob(y[:1])[0], RELAXED.log_prob(y)[0])


def test_values_of_other_dtypes_are_taken():
    for kind in ("one-hot", "bits"):
        law, value = LAWS[kind], LAWS[kind].sample(seed=0)
        for dtype in (torch.int64, torch.bool, torch.float64, torch.bfloat16, torch.float8_e5m2):
            assert torch.equal(law.log_prob(value.to(dtype)), law.log_prob(value))
            assert torch.equal(law.rsample(value=value.to(dtype)), value)


def test_numbers_of_numpy_count_as_numbers():
    law, two = LAWS["one-hot"], np.int64(2)
    assert torch.equal(law.sample((two,), seed=np.int32(1), rows=two), law.sample((2,), seed=1, rows=2))
    assert torch.equal(law[two].theta, law[2].theta)
    assert torch.equal(law[np.array([True, False, True])].theta, law[[0, 2]].theta)
    assert law.expand((two, np.int32(3))).batch_shape == (2, 3)
    relaxed = softdraw.RelaxedOneHotCategorical(np.float32(0.5), X)
    assert torch.equal(relaxed.sample(seed=1), softdraw.RelaxedOneHotCategorical(0.5, X).sample(seed=1))
    assert softdraw.expect(first, law, ZGR, samples=two, seed=0).shape == (3,)
    assert softdraw.Reinforce(baseline=np.float64(0.5)) == softdraw.Reinforce(baseline=0.5)


def test_a_list_of_bools_is_a_mask_of_the_batch():
    """A nested one takes as many dimensions as it has: it never reaches the categories."""
    keep = [[True, False], [True, True], [False, False]]
    law = softdraw.OneHotCategorical(torch.randn(3, 2, 4))
    assert torch.equal(law[keep].theta, law.theta[torch.tensor(keep)])
    with pytest.raises(IndexError, match="indexed by its batch"):
        LAWS["one-hot"][[[True] * 4] * 3]
    with pytest.raises(IndexError, match="indexed by its batch"):
        LAWS["one-hot"][np.ones((3, 4), bool)]


def test_empty_batches_and_laws_without_values():
    for make in MAKE.values():
        law = make(torch.zeros(0, 4))
        y = law.sample((2,))
        assert y.shape == (2, 0, 4)
        assert law.log_prob(y).shape == (2, *law.batch_shape)
        assert law.expand((5, *law.batch_shape)).batch_shape == (5, *law.batch_shape)
        nowhere = make(META)
        assert nowhere.log_prob(META).is_meta
        assert nowhere.probs.is_meta
    assert softdraw.OneHotCategorical(META).sample((2,)).shape == (2, 3, 4)
    assert softdraw.expect(first, softdraw.OneHotCategorical(torch.zeros(0, 4)), ZGR).shape == (0,)


def test_a_row_of_zero_probabilities_allows_nothing():
    for kind, make in EVENTS.items():
        law = make(probs=torch.tensor([[0.0, 0.0], [0.0, 2.0]]))
        assert torch.equal(law.probs, torch.tensor([[0.0, 0.0], [0.0, 1.0]])), kind
        assert torch.equal(law.sample(seed=0), law.probs), kind
        with pytest.raises(ValueError, match="their sum must be finite"):
            make(probs=torch.full((3, 4), 3e38))


def test_nan_stays_in_its_row():
    bad = X.clone()
    bad[1] = NAN
    rest = [0, 2]
    for kind, make in MAKE.items():
        law = make(bad)
        y = law.sample(seed=0)
        assert y[1].isnan().all()
        assert torch.equal(y[rest], LAWS[kind].sample(seed=0)[rest]) or kind == "relaxed"
        found = law.log_prob(torch.where(y.isnan(), 1.0, y))
        assert found[1].isnan().all()
        assert found[rest].isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float8_e4m3fn])
@pytest.mark.parametrize("categories", [3, 50_000])
def test_relaxed_samples_are_on_the_simplex_of_their_dtype(dtype, categories):
    """A narrow sample sums to one up to its rounding only; torch's tolerance of 1e-6 refused our own samples."""
    law = softdraw.RelaxedOneHotCategorical(1.0, torch.randn(8, categories).to(dtype), validate_args=True)
    assert law.log_prob(law.sample(seed=0)).shape == (8,)
    with pytest.raises(ValueError, match="support"):
        law.log_prob(1.5 * law.sample(seed=0).float())


def test_a_relaxed_law_says_what_it_is():
    assert repr(RELAXED) == "RelaxedOneHotCategorical(tau=0.7, logits of shape (3, 4))"
    each = softdraw.RelaxedOneHotCategorical(torch.ones(3), X, torch.tensor([True, True, True, False]))
    assert repr(each) == "RelaxedOneHotCategorical(tau=of shape (3,), logits of shape (3, 4), masked)"


def test_a_control_that_does_not_see_the_sample_is_no_control():
    """Its slope is zero, and the estimator is REINFORCE with a constant baseline."""
    level = torch.tensor(0.3, requires_grad=True)
    leaf = X.clone().requires_grad_()
    law = softdraw.OneHotCategorical(leaf)
    rule = softdraw.Relax(control=lambda y: level.expand(y.shape[:-1]), samples=3)
    (found,) = torch.autograd.grad(softdraw.expect(first, law, rule, seed=0).sum(), leaf)
    baseline = softdraw.expect(first, law, softdraw.Reinforce(baseline=0.3, samples=3), seed=0)
    assert_close(found, torch.autograd.grad(baseline.sum(), leaf)[0])
