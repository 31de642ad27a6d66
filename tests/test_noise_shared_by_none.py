"""No number of the noise is used twice: by two draws of ``expect``, by a draw and its rule's extra noise, or by two
modules under one seed. Values of 64 bits that are equal would be the same number of the generator."""

import pytest
import torch
from torch.testing import assert_close

import softdraw
from softdraw.rules.conditional_noise import Noise
from tests.methods import one_hot_logits

ROWS, WIDTH, SEED, SAMPLES = 4, 5, 7, 6
THETA = one_hot_logits(ROWS, WIDTH)


def noise(width=WIDTH, seed=SEED, stream=0, rows=ROWS):
    return softdraw.gumbel_noise((rows, width), seed=seed, stream=stream, dtype=torch.float64)


def all_differ(*parts):
    values = torch.cat([part.flatten() for part in parts])
    assert len(values.unique()) == len(values)


@pytest.fixture
def extra(monkeypatch):
    """What rules draw besides the draw itself, as they draw it."""
    found, original = [], Noise.more

    def recording(self, like, block, blocks=1):
        found.append(original(self, like, block, blocks))
        return found[-1].detach()

    monkeypatch.setattr(Noise, "more", recording)
    return found


def one_hots(theta, g):
    return torch.nn.functional.one_hot((theta + g).argmax(-1), WIDTH).double()


LAWS = {
    "one-hots": (softdraw.OneHotCategorical, one_hots),
    "orders": (softdraw.PlackettLuce, lambda theta, g: (theta + g).argsort(-1, descending=True)),
}


@pytest.mark.parametrize(("make", "sample_of"), LAWS.values(), ids=LAWS)
@pytest.mark.parametrize("kind", ["reinforce", "leave-one-out", "rebar", "relax"])
def test_the_draws_of_expect_and_what_a_rule_draws_besides(kind, make, sample_of, extra):
    rule = {
        "reinforce": softdraw.Reinforce(samples=SAMPLES),
        "leave-one-out": softdraw.LeaveOneOut(samples=SAMPLES),
        "rebar": softdraw.Rebar(samples=SAMPLES),
        "relax": softdraw.Relax(lambda y: y.double().flatten(2).square().sum(-1), samples=SAMPLES),
    }[kind]
    law, seen = make(THETA.clone().requires_grad_()), []

    def f(y):
        seen.append(y.detach())
        y = law.matrix(y) if isinstance(law, softdraw.PlackettLuce) else y
        return y.flatten(2).square().sum(-1)

    softdraw.expect(f, law, rule, seed=SEED).sum().backward()
    own = [noise(stream=s) for s in range(SAMPLES)]
    assert_close(seen[0], torch.stack([sample_of(THETA, g) for g in own]))
    assert bool(extra) is (kind in ("rebar", "relax"))
    all_differ(*own, *extra)


def test_the_draws_of_a_pathwise_rule():
    seen = []

    def f(y):
        seen.append(y)
        return y[..., 0]

    softdraw.expect(f, THETA.clone().requires_grad_(), softdraw.ZGR(), samples=SAMPLES, seed=SEED)
    own = [noise(stream=s) for s in range(SAMPLES)]
    assert_close(seen[-1].detach(), torch.stack([one_hots(THETA, g) for g in own]))
    bits = softdraw.Bernoulli(THETA).sample((SAMPLES,), seed=SEED)
    pairs = [noise(2, stream=s, rows=THETA.numel()).view(ROWS, WIDTH, 2) for s in range(SAMPLES)]
    assert_close(bits, torch.stack([(THETA + g[..., 1] > g[..., 0]).double() for g in pairs]))
    subsets = softdraw.Subset(torch.zeros(ROWS, 60), 30).sample((SAMPLES,), seed=SEED)
    assert len(subsets.flatten(0, 1).unique(dim=0)) == SAMPLES * ROWS  # of 10^17 that are alike


@pytest.mark.parametrize("drawn", [True, False])
def test_the_extra_draws_of_rao_blackwellised_rules(drawn, extra):
    """The generic formula, of which the compiled one has the numbers (tests/test_rule_kernels.py)."""
    theta = THETA.expand(SAMPLES, ROWS, WIDTH)
    at = Noise(torch.tensor(SEED), torch.arange(ROWS).view(1, ROWS, 1), drawn)
    sample = one_hots(theta, at.gumbel(theta))
    at.scores(theta, sample)
    list(at.conditional(theta, sample, 3))
    all_differ(*(noise(stream=s) for s in range(SAMPLES)), *extra)


def test_modules_of_several_names_and_widths_under_one_seed(extra):
    """A width that is twice another's: its columns would be the first block of the narrow one, were the keys alike."""
    own = []
    for name in ("encoder.0", "encoder.1", "decoder"):
        seed = softdraw.fold_in(SEED, name)
        for width in (10, 20, 40):
            seed_of_width = softdraw.fold_in(seed, width)
            own.append(noise(width, seed_of_width))
            x = one_hot_logits(ROWS, width)
            y = softdraw.nn.GumbelSoftmax(hard=True)(x, seed=seed_of_width)
            assert torch.equal(y.argmax(-1), (x + own[-1]).argmax(-1))
            Noise(seed_of_width, torch.arange(ROWS).view(1, ROWS, 1), True).more(x.unsqueeze(0), 0, 3)
    all_differ(*own, *extra)
    narrow = Noise(torch.tensor(SEED), torch.arange(ROWS).view(1, ROWS, 1), True)
    all_differ(noise(40), narrow.more(torch.zeros(1, ROWS, 10, dtype=torch.float64), 0, 3))
