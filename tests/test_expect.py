"""expect: its default rule, the number of samples, what f may return, draws keyed by ids, no_grad, torch.compile."""

import numpy as np
import pytest
import torch
from torch.distributions import Independent
from torch.testing import assert_close

import softdraw
from tests.methods import PATHWISE, SCORE, exact_gradient, label, one_hot_logits

ALL = PATHWISE + SCORE


def one_hots(logits, rule=None):
    return Independent(softdraw.OneHotCategorical(logits, rule=rule), 1)


def bits(logits, rule=None):
    return Independent(softdraw.Bernoulli(logits, rule=rule), 1)


def cubic(y):
    return y.flatten(2).cumsum(-1).pow(3).sum(-1)


class Counted:
    """f, and how many samples it saw in each call."""

    def __init__(self, f):
        self.f, self.calls = f, []

    def __call__(self, y):
        self.calls.append(len(y))
        return self.f(y)


def outcome(f, law, leaf, rule=None, **words):
    value = softdraw.expect(f, law, rule, **words)
    return value.detach(), torch.autograd.grad(value.sum(), leaf)[0]


def test_few_states_are_enumerated():
    leaf = one_hot_logits(3, 2, 4).requires_grad_()  # 16 joint states
    for f in (cubic, lambda y: torch.from_numpy(cubic(y.detach()).numpy())):
        found = outcome(f, one_hots(leaf), leaf)
        assert_close(found, exact_gradient(cubic, one_hots(leaf), leaf), rtol=1e-12, atol=1e-12)
    many = one_hot_logits(3, 2, 5).requires_grad_()
    found = outcome(cubic, one_hots(many), many, samples=25)  # as many evaluations as there are states
    assert_close(found, exact_gradient(cubic, one_hots(many), many), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("samples", [None, 3])
def test_a_differentiable_f_takes_the_law_s_rule_and_no_more_evaluations(samples):
    leaf = one_hot_logits(3, 4, 5).requires_grad_()
    for given, rule in ((None, softdraw.ZGR()), (softdraw.ReinMax(1.3), softdraw.ReinMax(1.3))):
        f = Counted(cubic)
        found = outcome(f, one_hots(leaf, given), leaf, seed=1, samples=samples)
        assert_close(found, outcome(cubic, one_hots(leaf), leaf, rule, seed=1, samples=samples), rtol=0, atol=0)
        assert f.calls == [samples or 1]
    few = one_hot_logits(3, 1, 3).requires_grad_()  # the user's rule stands before enumeration
    found = outcome(cubic, one_hots(few, softdraw.StraightThrough()), few, seed=1)
    assert_close(found, outcome(cubic, one_hots(few), few, softdraw.StraightThrough(), seed=1), rtol=0, atol=0)


BLACK_BOXES = {
    "detached": lambda y: cubic(y.detach()),
    "numpy": lambda y: cubic(torch.from_numpy(y.numpy().copy())),
    "bool": lambda y: y.flatten(2)[..., ::2].sum(-1) > 2,
    "int": lambda y: y.flatten(2).long().cumsum(-1).sum(-1),
    "integers of numpy": lambda y: cubic(y.detach()).numpy().astype("int32"),
    "lists": lambda y: cubic(y).tolist(),
    "changes its sample": lambda y: cubic(y.detach().add_(1)),
}


@pytest.mark.parametrize("name", BLACK_BOXES)
@pytest.mark.parametrize(
    ("law", "rule", "samples"),
    [
        (one_hots, softdraw.LeaveOneOut(4), None),
        (bits, softdraw.LeaveOneOut(4), None),
        (one_hots, softdraw.LeaveOneOut(2), 2),
        (bits, softdraw.DisARM(1), 2),
    ],
)
def test_a_black_box_takes_a_score_function_rule(name, law, rule, samples):
    leaf, f = (
        one_hot_logits(3, 5, 5)[..., 0 if law is bits else slice(None)].clone().requires_grad_(),
        BLACK_BOXES[name],
    )
    expected = outcome(f, law(leaf), leaf, rule, seed=1)
    assert expected[1].any()
    assert_close(outcome(f, law(leaf), leaf, seed=1, samples=samples), expected, rtol=0, atol=0)
    given = law(leaf, softdraw.GumbelSoftmax(0.5))  # a pathwise rule cannot serve a black box
    assert_close(outcome(f, given, leaf, seed=1, samples=samples), expected, rtol=0, atol=0)


@pytest.mark.parametrize(("pair", "samples", "wins"), [(1, 2, True), (2, 4, False)])
def test_which_rule_is_the_better_one_for_bits(pair, samples, wins):
    logits = one_hot_logits(8)
    leaf = logits.expand(20_000, 8).clone().requires_grad_()
    rules = softdraw.DisARM(pair), softdraw.LeaveOneOut(samples)
    pairs, plain = (outcome(cubic, bits(leaf), leaf, rule, seed=1)[1].var(0).sum() for rule in rules)
    assert (pairs < 0.95 * plain) if wins else (plain < 0.95 * pairs)


def test_no_value_of_a_black_box_is_wasted():
    leaf = one_hot_logits(3, 5, 5).requires_grad_()
    for samples, calls in ((None, [1, 3]), (6, [6])):
        f = Counted(BLACK_BOXES["detached"])
        softdraw.expect(f, one_hots(leaf), seed=1, samples=samples)
        assert f.calls == calls
    f = Counted(BLACK_BOXES["detached"])
    softdraw.expect(f, bits(leaf[..., 0]), seed=1, samples=2)
    assert f.calls == [2, 1]  # the probe, whose first sample is that of the pair, and the mirrored sample


def test_parameters_of_f_alone_do_not_make_it_differentiable():
    leaf, w = one_hot_logits(5, 5).requires_grad_(), torch.ones((), dtype=torch.float64, requires_grad=True)
    value = softdraw.expect(lambda y: w * cubic(y.detach().unsqueeze(1)).squeeze(1), one_hots(leaf), seed=1)
    gradient, slope = torch.autograd.grad(value, [leaf, w])
    assert gradient.any()
    assert_close(slope, value.detach())  # E[w f] by w, at w = 1


def test_the_user_s_mistake_in_f_is_the_user_s_error():
    def f(y):
        return {}["targets"] * y

    with pytest.raises(KeyError, match="targets") as caught:
        softdraw.expect(f, one_hots(one_hot_logits(3, 5, 5).requires_grad_()))
    assert caught.value.__context__ is None


def test_without_a_gradient_f_is_evaluated_at_plain_draws():
    logits = one_hot_logits(3, 5, 5)
    f = Counted(BLACK_BOXES["numpy"])
    found = softdraw.expect(f, one_hots(logits), samples=7, seed=1)
    assert_close(found, f(one_hots(logits).base_dist.sample((7,), seed=1)).mean(0), rtol=0, atol=0)
    with torch.no_grad():
        leaf = torch.nn.Parameter(logits)
        assert_close(softdraw.expect(f, one_hots(leaf), samples=7, seed=1), found, rtol=0, atol=0)
    assert f.calls == [7, 7, 7]


@pytest.mark.parametrize("rule", ALL, ids=label)
def test_values_under_no_grad_are_those_with_a_gradient(rule):
    leaf = torch.nn.Parameter(one_hot_logits(3, 4))
    expected = softdraw.expect(cubic, bits(leaf), rule, seed=1)
    with torch.no_grad():
        found = softdraw.expect(cubic, bits(leaf), rule, seed=1)
    assert not found.requires_grad
    assert_close(found, expected.detach(), rtol=0, atol=0)


@pytest.mark.parametrize("rule", [None, *ALL], ids=lambda rule: "default" if rule is None else label(rule))
@pytest.mark.parametrize("joint", [False, True], ids=["alone", "joint"])
@pytest.mark.parametrize("kind", ["first", "samples", "rows"])
def test_draws_are_keyed_by_the_ids_of_samples(rule, joint, kind):
    n, part = 5, slice(2, 5)
    logits = one_hot_logits(n, 5)
    if isinstance(rule, softdraw.Relax) and not joint:
        rule = softdraw.Relax(control=lambda y: 2.0 * y)  # the list's control is for a scalar of all bits

    def run(x, rows):
        leaf = x.clone().requires_grad_()
        law = bits(leaf) if joint else softdraw.Bernoulli(leaf)
        f = (lambda y: cubic(y)) if joint else (lambda y: 3.0 * y.pow(3) - 0.3)
        return outcome(f, law, leaf, rule, seed=3, rows=rows)

    ids = torch.tensor([7, 0, 9, 4, 12])
    rows = {
        "first": (10, 10 + 2 * 5),
        "samples": (ids, ids[part]),
        "rows": (every := torch.arange(25).view(5, 5).flip(0) + 3, every[part]),
    }[kind]
    whole, sliced = run(logits, rows[0]), run(logits[part], rows[1])
    assert_close(sliced[0], whole[0][part], rtol=1e-14, atol=1e-14)
    assert_close(sliced[1], whole[1][part], rtol=1e-14, atol=1e-14)
    if not isinstance(rule, softdraw.Exact) and joint:
        other = run(logits[part], 400)
        assert not torch.equal(sliced[0], other[0]) or not torch.equal(sliced[1], other[1])


@pytest.mark.parametrize(
    ("samples", "error", "message"),
    [
        (0, ValueError, "samples must be at least 1, got 0"),
        (-1, ValueError, "samples must be at least 1, got -1"),
        (np.int64(0), ValueError, "samples must be at least 1, got 0"),
        (2.0, TypeError, "samples must be an int, .*got float 2.0"),
        (True, TypeError, "samples must be an int, .*got bool True"),
        ("2", TypeError, "samples must be an int, .*got str '2'"),
        (torch.tensor(1.5), TypeError, "samples must be an int, .*got Tensor"),
    ],
)
@pytest.mark.parametrize("rule", [None, softdraw.ZGR(), softdraw.LeaveOneOut(4)], ids=["default", "ZGR", "RLOO"])
def test_samples_are_checked(samples, error, message, rule):
    with pytest.raises(error, match=message):
        softdraw.expect(cubic, one_hots(one_hot_logits(3, 5, 5)), rule, samples=samples)


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
@pytest.mark.parametrize("rule", [softdraw.Exact(), softdraw.SumAndSample(4), None], ids=["Exact", "S&S", "default"])
def test_f_may_be_anything_where_nothing_is_drawn(value, rule):
    leaf = torch.zeros(3, requires_grad=True)
    law = softdraw.OneHotCategorical(leaf, torch.tensor([False, True, True]))
    found = outcome(lambda y: torch.where(y[..., 0] > 0, value, y[..., 1]), law, leaf, rule)
    assert_close(found, (torch.tensor(0.5), torch.tensor([0.0, 0.25, -0.25])))


def test_samples_of_numpy_are_ints():
    law = one_hots(one_hot_logits(3, 5, 5))
    found, expected = (softdraw.expect(cubic, law, softdraw.ZGR(), samples=n, seed=1) for n in (np.int32(3), 3))
    assert torch.equal(found, expected)


def test_what_f_may_not_be_or_return():
    law = one_hots(one_hot_logits(3, 5, 5).requires_grad_())
    for bad, message in (
        (lambda y: None, "f must return a tensor or numbers, got NoneType"),
        (lambda y: "loss", "f must return a tensor or numbers, got str"),
        (lambda y: (y, y.sum()), "f must return a tensor or numbers, got tuple"),
        (lambda y: y.flatten(2).sum(-1) + 1j, "f must return real numbers, got a tensor of torch.complex"),
        (3.0, "f must be a function of the samples, got float"),
    ):
        for rule in (None, softdraw.ZGR(), softdraw.LeaveOneOut(2), softdraw.Exact()):
            with pytest.raises(TypeError, match=message):
                softdraw.expect(bad, law, rule)
    for rule in (None, softdraw.ZGR(), softdraw.LeaveOneOut(2)):
        with pytest.raises(ValueError, match=r"to values of shape \(\d, 3\), got \(\)"):
            softdraw.expect(lambda y: y.sum(), law, rule)
    with pytest.raises(ValueError, match=r"samples must be at least 2 where f gives no gradient.*got 1"):
        softdraw.expect(lambda y: cubic(y.detach()), law, samples=1)
    with pytest.raises(ValueError, match=r"would have to enumerate 1e\+300 joint states"):
        softdraw.expect(lambda y: y.sum(-1), bits(torch.zeros(5000)), softdraw.Exact())


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # of Dynamo's own look at a tensor, which hides it elsewhere
def test_torch_compile_asks_for_a_rule():
    leaf = one_hot_logits(3, 5, 5).requires_grad_()

    def step(x):
        return softdraw.expect(cubic, one_hots(x), seed=1)

    torch._dynamo.reset()
    assert_close(torch.compile(step, backend="aot_eager")(leaf), step(leaf))  # the step falls back to eager mode
    torch._dynamo.reset()
    with pytest.raises(Exception, match="expect must be given a rule under"):
        torch.compile(step, backend="aot_eager", fullgraph=True)(leaf)
    torch._dynamo.reset()
    few = torch.compile(lambda x: softdraw.expect(cubic, one_hots(x)), backend="aot_eager", fullgraph=True)
    small = one_hot_logits(3, 2, 3).requires_grad_()
    assert_close(few(small), softdraw.expect(cubic, one_hots(small)))  # enumeration looks at no graph


def test_under_the_transforms_of_torch_func():
    logits = one_hot_logits(3, 5, 5)

    def slope(f):
        return torch.func.grad(lambda x: softdraw.expect(f, one_hots(x), seed=1).sum())(logits)

    leaf = logits.clone().requires_grad_()
    for f, rule in ((cubic, softdraw.ZGR()), (BLACK_BOXES["detached"], softdraw.LeaveOneOut(4))):
        assert_close(slope(f), outcome(cubic, one_hots(leaf), leaf, rule, seed=1)[1])
