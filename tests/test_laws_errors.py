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
