"""Laws as sample sites of Pyro, by its mixin alone: exact ELBOs by enumeration, unbiased gradients otherwise."""

import math

import pytest
import torch
from torch.testing import assert_close

import softdraw

pytestmark = [pytest.mark.integrations, pytest.mark.filterwarnings("ignore")]
pyro = pytest.importorskip("pyro", reason="pip install pyro-ppl")
dist = pytest.importorskip("pyro.distributions")

from pyro.distributions.torch_distribution import TorchDistributionMixin  # noqa: E402
from pyro.infer import Trace_ELBO, TraceEnum_ELBO, config_enumerate  # noqa: E402


class OneHot(softdraw.OneHotCategorical, TorchDistributionMixin):
    """As a user would write it."""


class Bits(softdraw.Bernoulli, TorchDistributionMixin):
    """As a user would write it."""


class Relaxed(softdraw.RelaxedOneHotCategorical, TorchDistributionMixin):
    """As a user would write it."""


MEANS = torch.tensor([-1.0, 0.5, 2.0], dtype=torch.float64)
PRIOR = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
X = torch.tensor([0.3, 1.4], dtype=torch.float64)
Q = torch.tensor([[0.2, -0.4, 0.9], [1.0, 0.0, -1.0]], dtype=torch.float64)


@pytest.fixture(autouse=True)
def _clean():
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    with pyro.validation_enabled(True):
        yield


def normal_log_prob(x, mean):
    return -0.5 * (x - mean) ** 2 - 0.5 * math.log(2 * math.pi)


def exact_elbo(q_logits, x=X):
    """sum_z q(z) (log p(z) + log N(x; mean_z, 1) - log q(z)), over the rows."""
    log_q = q_logits.log_softmax(-1)
    log_joint = PRIOR.log() + normal_log_prob(x.unsqueeze(-1), MEANS)
    return (log_q.exp() * (log_joint - log_q)).sum(-1)


def mixture(x):
    """z ~ prior, x ~ N(<z, means>, 1), for every row of a plate; the density is quadratic in z."""
    with pyro.plate("rows", x.shape[-1], dim=-1):
        z = pyro.sample("z", OneHot(PRIOR.log()))
        pyro.sample("x", dist.Normal(z @ MEANS, 1.0), obs=x)


def guide_of(q_logits, **settings):
    def guide(x):
        with pyro.plate("rows", x.shape[-1], dim=-1):
            pyro.sample("z", OneHot(q_logits, **settings), infer=guide.infer)

    guide.infer = {}
    return guide


@pytest.mark.parametrize("expand", [True, False])
def test_an_enumerated_guide_has_the_exact_elbo_and_gradient(expand):
    q = Q.clone().requires_grad_()
    guide = guide_of(q)
    guide.infer = {"enumerate": "parallel", "expand": expand}
    loss = TraceEnum_ELBO(max_plate_nesting=1).differentiable_loss(mixture, guide, X)
    assert_close(-loss, exact_elbo(q).sum())
    found, exact = (torch.autograd.grad(v, q, retain_graph=True)[0] for v in (-loss, exact_elbo(q).sum()))
    assert_close(found, exact)


def test_sequential_enumeration_has_the_exact_elbo():
    def model(x):
        z = pyro.sample("z", OneHot(PRIOR.log()))
        pyro.sample("x", dist.Normal(z @ MEANS, 1.0), obs=x)

    def guide(x):
        pyro.sample("z", OneHot(Q[0]), infer={"enumerate": "sequential"})

    assert_close(-TraceEnum_ELBO(max_plate_nesting=0).loss(model, guide, X[0]), exact_elbo(Q[0], X[0]).item())


def test_sites_that_the_model_alone_has_are_summed_out():
    loss = TraceEnum_ELBO(max_plate_nesting=1).loss(config_enumerate(mixture), lambda x: None, X)
    evidence = (PRIOR.log() + normal_log_prob(X.unsqueeze(-1), MEANS)).logsumexp(-1).sum()
    assert_close(torch.tensor(-loss, dtype=torch.float64), evidence)


def test_bits_and_masked_categories_are_enumerated():
    """Three bits and a masked one-hot in one joint event: 8 times 3 joint states, against their sum by hand."""
    bit_logits, w = torch.tensor([0.3, -0.2, 1.0], dtype=torch.float64), torch.tensor([1.0, -2.0, 0.5]).double()
    allowed = torch.tensor([True, False, True])

    @config_enumerate
    def model(x):
        b = [pyro.sample(f"b{i}", Bits(bit_logits[i])) for i in range(3)]
        z = pyro.sample("z", OneHot(Q[0], allowed))
        mean = sum(bit * w[i] for i, bit in enumerate(b)) + z @ MEANS
        pyro.sample("x", dist.Normal(mean, 1.0), obs=x)

    states = torch.cartesian_prod(*[torch.tensor([0.0, 1.0]).double()] * 3)
    log_b = (states * bit_logits - torch.nn.functional.softplus(bit_logits)).sum(-1)
    log_z = Q[0].masked_fill(~allowed, -math.inf).log_softmax(-1)
    mean = (states @ w).unsqueeze(-1) + MEANS
    evidence = (log_b.unsqueeze(-1) + log_z + normal_log_prob(X[0], mean)).flatten().logsumexp(0)
    found = TraceEnum_ELBO(max_plate_nesting=0).loss(model, lambda x: None, X[0])
    assert_close(-found, evidence.item())


COPIES = 400


def gradient_in_rows(particles, vectorize, **settings):
    """The gradient of Pyro's ELBO estimate for 400 rows with a copy of the parameters each, and the exact one."""
    q, x = Q[0].repeat(COPIES, 1).requires_grad_(), X[0].repeat(COPIES)
    elbo = Trace_ELBO(num_particles=particles, vectorize_particles=vectorize, max_plate_nesting=1)
    (found,) = torch.autograd.grad(-elbo.differentiable_loss(mixture, guide_of(q, **settings), x), q)
    one = Q[0].clone().requires_grad_()
    (exact,) = torch.autograd.grad(exact_elbo(one, X[0]), one)
    return found, exact


@pytest.mark.parametrize("vectorize", [True, False])
@pytest.mark.parametrize("rule", [None, softdraw.ZGR(), softdraw.ReinMax()], ids=str)
def test_gradients_are_unbiased_with_and_without_a_rule(rule, vectorize):
    """Without a rule by the score function; with one along the sample, unbiased for what is quadratic in it."""
    settings = {} if rule is None else {"rule": rule}
    found, exact = gradient_in_rows(10 if vectorize else 3, vectorize, **settings)
    error = found.std(0) / COPIES**0.5
    assert (error > 0).all()
    assert ((found.mean(0) - exact).abs() < 4 * error).all()


def test_a_rule_makes_pyro_differentiate_along_the_sample():
    """Number for number: log p(x, z) - log q(z) at the sample of the same seed, differentiated through it."""
    for rule in (softdraw.ReinMax(tau=1.2), softdraw.StraightThrough()):
        pyro.set_rng_seed(3)
        q = Q.clone().requires_grad_()
        loss = Trace_ELBO().differentiable_loss(mixture, guide_of(q, rule=rule), X)
        (found,) = torch.autograd.grad(-loss, q)
        torch.manual_seed(3)
        z = softdraw.draw(softdraw.OneHotCategorical(q), rule)
        log_q = (z * q.log_softmax(-1)).sum(-1)
        elbo = ((z * PRIOR.log()).sum(-1) + normal_log_prob(X, z @ MEANS) - log_q).sum()
        assert_close(-loss, elbo)
        assert_close(found, torch.autograd.grad(elbo, q)[0])


def test_shapes_of_events_masks_and_plates():
    law = OneHot(torch.zeros(2, 4, 3))
    assert law.event_dim == 1
    assert law.to_event(1).event_shape == (4, 3)
    assert law.to_event(2).batch_shape == ()
    assert not law.to_event(1).has_rsample
    assert OneHot(torch.zeros(4, 3), rule=softdraw.ZGR()).to_event(1).has_rsample
    assert law.expand_by([5]).batch_shape == (5, 2, 4)
    assert type(law.expand_by([5])) is OneHot
    assert law().shape == (2, 4, 3)
    assert law.shape((7,)) == (7, 2, 4, 3)
    keep = torch.tensor([[True], [False]])
    masked = law.mask(keep)
    z = masked.sample()
    assert_close(masked.log_prob(z), law.log_prob(z) * keep)
    assert not masked.has_rsample
    assert masked.has_enumerate_support
    assert masked.enumerate_support().shape == (3, 2, 4, 3)
    forbidden = OneHot(torch.zeros(2, 3), torch.tensor([True, True, False])).mask(False)
    assert not forbidden.log_prob(forbidden.sample()).any()


def test_masked_sites_count_nothing():
    keep = torch.tensor([True, False])

    def model(x):
        with pyro.plate("rows", 2), pyro.poutine.mask(mask=keep):
            z = pyro.sample("z", OneHot(PRIOR.log()))
            pyro.sample("x", dist.Normal(z @ MEANS, 1.0), obs=x)

    def guide(x):
        with pyro.plate("rows", 2):
            pyro.sample("z", OneHot(Q).mask(keep), infer={"enumerate": "parallel"})

    assert_close(-TraceEnum_ELBO(max_plate_nesting=1).loss(model, guide, X), exact_elbo(Q)[0].item())


def test_plates_expand_a_law_and_its_copies_are_independent():
    def model():
        with pyro.plate("a", 500, dim=-2), pyro.plate("b", 2, dim=-1):
            return pyro.sample("z", OneHot(PRIOR.log())), pyro.sample("y", Relaxed(0.7, torch.zeros(3)))

    z, y = model()
    assert z.shape == y.shape == (500, 2, 3)
    assert_close(z.mean((0, 1)), PRIOR, rtol=0, atol=0.06)
    assert not torch.equal(z[:, 0], z[:, 1])
    assert len(y.flatten(0, 1).unique(dim=0)) == 1000


def test_pyros_validation_is_honoured():
    half = torch.tensor([0.5, 0.5, 0.0], dtype=torch.float64)

    def model():
        pyro.sample("z", OneHot(Q[0]), obs=half)

    with pytest.raises(ValueError, match="within the support of OneHot"):
        pyro.poutine.trace(model).get_trace().log_prob_sum()
    with pyro.validation_enabled(False):
        assert pyro.poutine.trace(model).get_trace().log_prob_sum().isfinite()


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (OneHot(Q), torch.distributions.OneHotCategorical),
        (Bits(X), torch.distributions.Bernoulli),
        (Relaxed(0.7, Q), torch.distributions.RelaxedOneHotCategorical),
    ],
    ids=["one-hot", "bits", "relaxed"],
)
def test_a_law_takes_no_name_that_pyro_adds(ours, theirs):
    """``law.mask`` was the mask once: every name is Pyro's, but for those that torch's own law has as well."""
    added = {name for c in TorchDistributionMixin.__mro__[:-1] for name in vars(c) if not name.startswith("__")}
    added -= set(dir(theirs))
    classes = [c for c in type(ours).__mro__ if c.__module__.startswith("softdraw")]
    taken = {name for c in classes for name in vars(c)} | set(vars(ours))
    assert added > {"mask", "to_event", "expand_by", "has_enumerate_support"} - set(dir(theirs))
    assert not added & taken
