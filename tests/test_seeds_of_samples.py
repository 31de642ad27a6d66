"""A seed for every sample: a sample draws what it draws alone with its seed, in every function that takes one."""

import inspect
import operator

import pytest
import torch

import softdraw
from tests.methods import PATHWISE, SCORE, label

X = torch.randn(4, 3, 5, generator=torch.Generator().manual_seed(0))
SEEDS = softdraw.fold_in(0, torch.arange(4))


def gradients(call, x, seed, rows=0):
    leaf = x.clone().requires_grad_()
    y = call(leaf, seed, rows)
    if not y.requires_grad:
        return y, torch.zeros_like(x)
    (y * torch.linspace(-1, 1, y.shape[-1])).sum().backward()
    return y.detach(), leaf.grad


def law(kind):
    return lambda x, seed, rows: getattr(softdraw, kind)(x).rsample(seed=seed, rows=rows)


def relaxed(x, seed, rows):
    return softdraw.RelaxedOneHotCategorical(0.7, logits=x).rsample(seed=seed, rows=rows)


def estimated(rule):
    return lambda x, seed, rows: softdraw.expect(
        lambda y: (y[..., 0] - 0.3) ** 2, softdraw.OneHotCategorical(x), rule, seed=seed, rows=rows
    )


def on_one_rank(draw):
    """A draw of softdraw.distributed, whose block is the whole row."""

    def call(x, seed, rows):
        torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
        try:
            return draw(x, 0, seed=seed, rows=rows)
        finally:
            torch.distributed.destroy_process_group()

    return call


CODES = torch.randn(6, 5, generator=torch.Generator().manual_seed(1))
SEEDED = {
    "soft": lambda x, seed, rows: softdraw.gumbel_softmax(x, 0.7, seed=seed, rows=rows),
    "hard": lambda x, seed, rows: softdraw.gumbel_softmax(x, 0.7, hard=True, seed=seed, rows=rows),
    "index": lambda x, seed, rows: softdraw.gumbel_max(x, seed=seed, rows=rows),
    "module": lambda x, seed, rows: softdraw.nn.GumbelSoftmax(0.7)(x, seed=seed, rows=rows),
    "noise": lambda x, seed, rows: softdraw.gumbel_noise(x.shape, seed=seed, rows=rows),
    "law": law("OneHotCategorical"),
    "bits": law("Bernoulli"),
    "relaxed": relaxed,
    "subset": lambda x, seed, rows: softdraw.Subset(x, 2).rsample(seed=seed, rows=rows),
    "subset alone": lambda x, seed, rows: softdraw.Subset(x, 2).sample((2,), seed=seed, rows=rows).movedim(0, -1),
    "given noise": lambda x, seed, rows: softdraw.gumbel_noise(
        x.shape, seed=seed, rows=rows, logits=x, index=torch.full(x.shape[:-1], 2)
    ),
    "column": lambda x, seed, rows: softdraw.noise_at(torch.full(x.shape[:-1], 3), seed=seed, rows=rows),
    "uniform": lambda x, seed, rows: softdraw.uniform_at(torch.full(x.shape[:-1], 3), seed=seed, rows=rows),
    "index draw": lambda x, seed, rows: torch.stack(
        softdraw.draw_index(x, temperature=0.5, seed=seed, rows=rows)[1:], -1
    ),
    "truncated": lambda x, seed, rows: torch.stack(softdraw.draw_index(x, top_k=3, seed=seed, rows=rows)[1:], -1),
    "in order": lambda x, seed, rows: softdraw.gumbel_topk(x, 3, seed=seed, rows=rows),
    "orders": lambda x, seed, rows: softdraw.PlackettLuce(x, 3).sample(seed=seed, rows=rows),
    "orders' scores": lambda x, seed, rows: softdraw.PlackettLuce(x, 2).scores_given(
        torch.tensor([2, 0]).expand(*x.shape[:-1], 2), seed=seed, rows=rows
    ),
    "matrices": lambda x, seed, rows: softdraw.gumbel_sinkhorn(
        x.unsqueeze(-1) * x.unsqueeze(-2), seed=seed, rows=rows
    ).plan.flatten(-2),
    "router": lambda x, seed, rows: (
        softdraw.nn.Router(None, 5, 2, law="plackett-luce")(logits=x, seed=seed, rows=rows).value
    ),
    "gate": lambda x, seed, rows: softdraw.nn.Gate(5, law="hard-concrete")(logits=x, seed=seed, rows=rows).value,
    "latent": lambda x, seed, rows: softdraw.nn.Latent(None, 1, 5)(
        logits=x.unsqueeze(-2), seed=seed, rows=rows if isinstance(rows, int) else rows.unsqueeze(-1)
    ).value.flatten(-2),
    "codebook": lambda x, seed, rows: (
        softdraw.nn.Codebook(None, 5, 4)(
            logits=x.unsqueeze(-2), seed=seed, rows=rows if isinstance(rows, int) else rows.unsqueeze(-1)
        ).index
    ),
    "linear": lambda x, seed, rows: softdraw.linear_draw(x, CODES, codebook=CODES, seed=seed, rows=rows).value,
    "sharded": on_one_rank(lambda x, *a, **k: softdraw.distributed.gumbel_softmax(x.detach(), *a, **k)),
    "sharded draw": on_one_rank(lambda x, *a, **k: softdraw.distributed.draw(x.detach(), *a, **k)),
    "sharded index": on_one_rank(softdraw.distributed.gumbel_max),
    "sharded index draw": on_one_rank(lambda *a, **k: softdraw.distributed.draw_index(*a, **k).index),
    "sharded linear": on_one_rank(
        lambda x, start, **k: softdraw.distributed.linear_draw(x, CODES, start, codebook=CODES, **k).value
    ),
    "weights": lambda x, seed, rows: softdraw.multinomial(x.detach().exp(), 4, True, seed=seed, rows=rows),
    "weights in order": lambda x, seed, rows: softdraw.multinomial(x.detach().exp(), 3, seed=seed, rows=rows),
}
TAKES = {  # every public name with seed= takes a seed for each sample, but for the last ones
    *("gumbel_softmax", "gumbel_max", "gumbel_noise", "noise_at", "uniform_at", "draw_index", "gumbel_topk"),
    *("multinomial", "fold_in", "draw", "expect", "nn.GumbelSoftmax.forward"),
    *("OneHotCategorical.rsample", "Bernoulli.rsample", "RelaxedOneHotCategorical.rsample", "Subset.rsample"),
    *("OneHotCategorical.sample", "Bernoulli.sample", "Subset.sample", "PlackettLuce.sample", "PlackettLuce.rsample"),
    *(
        "linear_draw",
        *(f"distributed.{name}" for name in ("gumbel_max", "gumbel_softmax", "draw", "draw_index", "linear_draw")),
    ),
    *("gumbel_sinkhorn", *(f"nn.{name}.forward" for name in ("Codebook", "Gate", "Latent", "Router"))),
}
ONE = {
    "WeightedSampler": lambda seed: softdraw.WeightedSampler([1.0, 2.0], 2, seed=seed),
    "conformance.check": lambda seed: softdraw.conformance.check(lambda x, seed, rows: rows, seed=seed),
    "nn.reseed": lambda seed: softdraw.nn.reseed(
        softdraw.nn.Codebook(None, 5, 4), X[0, :, :4], torch.arange(5).view(1, 5), seed=seed
    ),
    "diagnose": lambda seed: softdraw.diagnose(lambda y: y.sum(-1), X[0, 0], seed=seed, samples=50),
}


def public():
    for name in softdraw.__all__:
        found = getattr(softdraw, name)
        inner = [f"{name}.{x}" for x in getattr(found, "__all__", [])] if inspect.ismodule(found) else [name]
        yield from ((x, operator.attrgetter(x)(softdraw)) for x in inner)


def has_seed(function):
    return callable(function) and "seed" in inspect.signature(function).parameters


def test_every_name_with_a_seed_is_here():
    found = set()
    for name, thing in public():
        if inspect.isclass(thing):
            methods = (m for m in ("forward", "sample", "rsample") if has_seed(getattr(thing, m, None)))
            found |= {f"{name}.{m}" for m in methods}
        try:
            found |= {name} if has_seed(thing) else set()
        except ValueError:  # a name without a signature
            continue
    assert found == TAKES | set(ONE)


def test_the_seed_of_a_report_is_an_int():
    for seed in (1.5, True, "1", None, 2**64, -(2**63) - 1):
        with pytest.raises((TypeError, ValueError), match="seed must be"):
            ONE["diagnose"](seed)


@pytest.mark.parametrize("name", ONE)
def test_what_takes_one_seed_refuses_several(name):
    with pytest.raises((TypeError, ValueError), match="seed"):
        ONE[name](SEEDS)


SEEDED |= {
    f"draw {label(rule)}": lambda x, seed, rows, rule=rule: softdraw.draw(x, rule, seed=seed, rows=rows)
    for rule in PATHWISE
}
CONTROLLED = softdraw.Relax(control=lambda y: 0.7 * y[..., 0] ** 2, tau=0.8)
EXPECTED = [*PATHWISE, *(rule for rule in SCORE if type(rule) not in (softdraw.DisARM, softdraw.Relax)), CONTROLLED]
SEEDED |= {f"expect {label(rule)}": estimated(rule) for rule in EXPECTED}


@pytest.mark.parametrize("name", SEEDED)
@pytest.mark.usefixtures("each_body")
def test_a_sample_with_its_seed_draws_what_it_draws_alone(name):
    call = SEEDED[name]
    for rows in (0, 7):
        y, g = gradients(call, X, SEEDS, rows)
        for i in range(len(X)):
            alone, slope = gradients(call, X[i], SEEDS[i], rows)
            torch.testing.assert_close(y[i], alone, rtol=1e-5, atol=1e-6)
            torch.testing.assert_close(g[i], slope, rtol=1e-4, atol=1e-6)
    # Seeds for every row, the rows of a sample having that of the sample: each row is then row 0 of its seed.
    if not name.startswith("bits"):
        each, _ = gradients(call, X, SEEDS.unsqueeze(-1).expand(4, 3), torch.arange(3).expand(4, 3))
        whole, _ = gradients(call, X, SEEDS, torch.arange(3).expand(4, 3))
        torch.testing.assert_close(each, whole, rtol=1e-5, atol=1e-6)


def test_disarm_takes_seeds_of_samples():
    def estimate(theta, seed):
        leaf = theta.clone().requires_grad_()
        bits = torch.distributions.Independent(softdraw.Bernoulli(leaf), 1)
        softdraw.expect(lambda b: (b.sum(-1) - 0.4) ** 2, bits, softdraw.DisARM(2), seed=seed).sum().backward()
        return leaf.grad

    theta = X[:, 0]
    whole = estimate(theta, SEEDS)
    for i in range(4):
        torch.testing.assert_close(whole[i], estimate(theta[i], SEEDS[i]))


def test_streams_under_seeds_of_samples():
    drawn = softdraw.gumbel_max(X, sample_shape=(3,), seed=SEEDS)
    for i in range(4):
        assert torch.equal(drawn[:, i], softdraw.gumbel_max(X[i], sample_shape=(3,), seed=SEEDS[i]))
