"""What every law promises (tests/laws.py), against enumeration and derivatives of the log-normaliser."""

import pickle

import pytest
import torch
from scipy.stats import chisquare
from torch.distributions import Independent
from torch.testing import assert_close

import softdraw
from softdraw.rules.needs import Need
from tests.laws import LAWS, logits, mean, vector, weighted
from tests.methods import PATHWISE, SCORE, label, one_hot_logits


def states(law):
    """Every sample, ``(N, *batch, *event)``, and its probability by enumeration, ``(N, *batch)``."""
    every = law.enumerate_support()
    return every, law.log_prob(every).exp()


FAMILIES = {name: make for name, make in LAWS.items() if Need.FAMILY in make(logits()).offers}
ORDERS = {name: make for name, make in LAWS.items() if isinstance(make(logits()), softdraw.PlackettLuce)}
every_law = pytest.mark.parametrize("make", LAWS.values(), ids=LAWS)
every_family = pytest.mark.parametrize("make", FAMILIES.values(), ids=FAMILIES)
every_law_of_orders = pytest.mark.parametrize("make", ORDERS.values(), ids=ORDERS)


@every_law
def test_probabilities_sum_to_one_and_the_mean_is_theirs(make):
    law = make(logits())
    every, p = states(law)
    assert_close(p.sum(0), torch.ones(law.batch_shape, dtype=torch.float64))
    assert_close(weighted(law, p, every).sum(0), mean(law))
    assert_close(-torch.special.xlogy(p, p).sum(0), law.entropy())


def family(law):
    """The natural parameters of the law, and the law that has them as ``theta``: of a mixture another one."""
    if not getattr(law, "mixing", 0):
        return law.theta, law
    eta = law.scores().detach().requires_grad_()
    return eta, softdraw.OneHotCategorical(eta)


@every_family
def test_the_family_is_the_derivatives_of_its_log_normalizer(make):
    law, g = make(logits().requires_grad_()), one_hot_logits(3, 4, seed=1)
    theta, natural = family(law)
    (mean,) = torch.autograd.grad(natural.log_normalizer().sum(), theta, create_graph=True)
    assert_close(mean, law.mean)
    (hessian_product,) = torch.autograd.grad(mean, theta, g)
    assert_close(law.covariance_product(g), hessian_product)
    h = one_hot_logits(3, 4, seed=2)
    assert_close((h * law.covariance_product(g)).sum(), (g * law.covariance_product(h)).sum())  # symmetric


@every_family
def test_log_prob_is_the_exponential_family(make):
    law = make(logits())
    every, p = states(law)
    possible = p > 0
    inner = torch.where(every > 0, every * family(law)[0], 0)
    inner = inner.sum(-1) if law.event_dims else inner
    assert_close(law.log_prob(every)[possible], (inner - law.log_normalizer())[possible])


@every_law
def test_samples_have_the_law(make):
    law = make(logits())
    every, p = states(law)
    found = law.sample((20_000,), seed=1).unsqueeze(1) == every
    counts = (found.all(-1) if law.event_dims else found).double().sum(0)
    for row in range(p[0].numel()):
        expected, observed = p.flatten(1)[:, row], counts.flatten(1)[:, row]
        assert not observed[expected == 0].any()
        if (expected > 0).sum() > 1:
            assert chisquare(observed[expected > 0], 20_000 * expected[expected > 0]).pvalue > 1e-4


@every_law
@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float8_e4m3fn, torch.float8_e5m2]
)
def test_every_dtype_is_computed_in_float32(make, dtype):
    narrow = make(logits(dtype))
    wide = make(narrow.theta.double())
    support = narrow.enumerate_support()
    pairs = [
        (narrow.entropy(), wide.entropy()),
        (narrow.log_prob(support), wide.log_prob(support.double())),
        (mean(narrow), mean(wide)),
    ]
    if Need.FAMILY in narrow.offers:
        pairs.append((narrow.log_normalizer(), wide.log_normalizer()))
        pairs += [(getattr(narrow, name), getattr(wide, name)) for name in ("variance", "mode", "probs")]
        assert narrow.sample(seed=0).dtype == narrow.rsample(seed=0).dtype == dtype
    else:
        assert torch.equal(narrow.mode, wide.mode)
    for found, exact in pairs:
        assert found.dtype == dtype
        _equals_rounded(found, exact)
    assert torch.equal(narrow.sample((50,), seed=0).double(), make(narrow.theta.float()).sample((50,), seed=0).double())
    assert narrow.uniform().theta.dtype == dtype


def _equals_rounded(found, exact):
    """One rounding to the narrow dtype, of a float32 computation."""
    expected = exact.float().to(found.dtype).double()
    close = (found.double() - expected).abs() <= 2 * torch.finfo(found.dtype).eps * exact.abs()
    # -inf is NaN in float8_e4m3fn, which has no infinity.
    assert (close | (found.double() == expected) | (found.isnan() & expected.isnan())).all()


@every_law
def test_a_part_of_the_batch(make):
    theta = one_hot_logits(5, 3, 4)
    law = make(theta)
    y = law.sample(seed=0)
    keep = [True, False, True, True, False]
    for index in (0, -1, slice(1, 4), (2, 1), (..., 0), [3, 3], keep):
        part = law[index]
        rows = (..., 0, slice(None)) if index == (..., 0) and law.event_dims else index
        places = (..., 0, slice(None), slice(None)) if rows != index and vector(law, y) is not y else rows
        assert type(part) is type(law)
        assert_close(mean(part), mean(law)[places])
        assert_close(part.theta, law.theta[rows])
        assert_close(part.log_prob(y[rows]), law.log_prob(y)[index])
    with pytest.raises(IndexError, match="a law is indexed by its batch"):
        law[(0,) * (len(law.batch_shape) + 1)]


@every_law
def test_expand_keeps_a_subclass_and_what_it_has(make):
    base = make(logits())

    class Own(type(base)):
        """With a constructor of its own, which torch's laws refuse to expand."""

        def __init__(self, *parameters):
            super().__init__(*parameters)
            self.extra = "mine"
            self.mixing = getattr(base, "mixing", 0)

    own = [vars(base)[name] for name in ("k", "length") if name in vars(base)]
    law = Own(base.theta, *own, base.allowed)
    wide = law.expand((2, *law.batch_shape))
    assert type(wide) is Own
    assert wide.extra == "mine"
    assert_close(mean(wide)[1], mean(base))
    assert wide.batch_shape == (2, *base.batch_shape)
    assert wide.sample((6,), seed=0).shape == (6, 2, *base.batch_shape, *base.event_shape)


@every_law
def test_a_rule_that_does_not_serve_a_law_is_refused_with_what_it_needs(make):
    law = make(logits())
    for rule in PATHWISE + SCORE:
        use = softdraw.draw if rule in PATHWISE else None
        if rule.needs in law.offers:
            continue
        with pytest.raises(TypeError, match=rf"{type(rule).__name__} does not serve {type(law).__name__}: it needs "):
            use(law, rule) if use else softdraw.expect(lambda y: y.sum(-1), law, rule)


@every_family
@pytest.mark.parametrize("rule", [softdraw.StraightThrough(), softdraw.ZGR()], ids=label)
def test_pathwise_rules_of_a_family(make, rule):
    """The mean over all samples, against the exact gradient: straight-through of a linear f, ZGR of a quadratic one."""
    theta = logits().requires_grad_()
    law = make(theta)
    every, p = states(law)
    a, b = one_hot_logits(4, 4, seed=3), one_hot_logits(4, seed=4)
    quadratic = 0.0 if isinstance(rule, softdraw.StraightThrough) else 1.0

    def f(z):
        if law.event_dims == 0:  # each bit by itself
            return z * b + quadratic * z**2
        return z @ b + quadratic * ((z @ a) * z).sum(-1)

    (exact,) = torch.autograd.grad((p * f(every)).sum(), theta)
    y = softdraw.draw(make(theta), rule, value=every.detach(), seed=0)
    arriving = torch.autograd.grad(f(z := every.detach().requires_grad_()).sum(), z)[0]
    weight = p.detach().view(*p.shape, *[1] * law.event_dims)
    (mean,) = torch.autograd.grad(y, theta, weight * arriving)
    assert_close(mean, exact, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("rule", [softdraw.ZGR(), softdraw.StraightThrough(), softdraw.StraightThrough(1.3)], ids=label)
def test_a_law_beyond_categories_has_its_own_samples_under_a_rule(rule):
    law = softdraw.Subset(one_hot_logits(50, 4).requires_grad_(), 2)
    y = softdraw.draw(law, rule, (3,), seed=0)
    assert (y.sum(-1) == 2).all()
    assert torch.equal(y.detach(), law.sample((3,), seed=0))
    (gradient,) = torch.autograd.grad(y, law.theta, torch.rand(3, 50, 4, dtype=torch.float64))
    assert_close(gradient.sum(-1), torch.zeros(50, dtype=torch.float64))
    with pytest.raises(
        TypeError, match=r"GumbelRao does not serve Subset: it needs a categorical law.*StraightThrough"
    ):
        softdraw.draw(law, softdraw.GumbelRao())


@every_law
@pytest.mark.parametrize("rule", [softdraw.LeaveOneOut(4), softdraw.Reinforce(), softdraw.Exact()], ids=label)
def test_expectations_under_every_law(make, rule):
    law = make(logits())
    every, p = states(law)
    shape = mean(law).shape[len(law.batch_shape) :]
    w = one_hot_logits(*shape, seed=5) if law.event_dims else torch.tensor(0.7, dtype=torch.float64)

    def f(z):
        return (vector(law, z) * w).flatten(z.dim() - law.event_dims).sum(-1) ** 2 if law.event_dims else (z * w) ** 2

    exact = (p * f(every)).sum(0)
    found = softdraw.expect(f, law.expand((4000, *law.batch_shape)), rule, seed=2)
    error = found.std(0) / 4000**0.5
    assert ((found.mean(0) - exact).abs() <= 5 * error + 1e-12).all()


@pytest.fixture
def validation():
    """torch's setting, which the first torch.compile of a process turns off."""
    before = torch.distributions.Distribution._validate_args
    yield torch.distributions.Distribution.set_default_validate_args
    torch.distributions.Distribution.set_default_validate_args(before)


@every_family
def test_values_outside_the_support_are_errors_as_torch_has_it(make, validation):
    law = make(logits())
    bad = torch.full(law.mean.shape, 0.3, dtype=torch.float64)
    validation(False)
    assert law.log_prob(bad).shape == law.batch_shape
    assert torch.equal(softdraw.draw(law, softdraw.ZGR(), value=bad), bad)
    validation(True)
    for use in (law.log_prob, lambda x: softdraw.draw(law, softdraw.ZGR(), value=x), Independent(law, 1).log_prob):
        with pytest.raises(ValueError, match=r"value must be within the support"):
            use(bad)


@every_law_of_orders
def test_values_that_are_no_orders_are_errors_as_torch_has_it(make, validation):
    law = make(logits())
    m = law.length
    for bad in ([0.3] * m, [0] * m, [4] * m, [-2] * m, [-1] * m, [-1, 0, 2, 3][:m]) if m > 1 else ():
        value = torch.tensor(bad).expand(3, -1)
        validation(False)
        assert law.log_prob(value).shape == law.batch_shape
        if value.dtype == torch.int64:
            assert (law.log_prob(value) == -torch.inf).all()
        validation(True)
        for use in (law.log_prob, Independent(law, 1).log_prob, lambda x: law.scores_given(x, seed=0)):
            with pytest.raises(ValueError, match=r"value must be within the support of PlackettLuce \(orders of"):
                use(value)


@every_law
def test_laws_pickle_and_say_what_they_are(make):
    law = make(logits())
    again = pickle.loads(pickle.dumps(law))
    assert_close(again.entropy(), law.entropy())
    assert torch.equal(again.sample(seed=3), law.sample(seed=3))
    assert "logits of shape (3, 4)" in repr(law)
    assert "ZGR()" not in repr(law)  # the default, which the user did not give
    assert "rule=ZGR()" in repr(softdraw.OneHotCategorical(torch.zeros(3), rule=softdraw.ZGR()))
