"""The law of k of n items: its numbers against enumeration, a recursion in log space and published ones; its
samples."""

import math
from itertools import combinations

import pytest
import torch
from scipy.stats import chisquare
from torch.distributions import kl_divergence
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import softdraw
from softdraw.kernels.reference import subset as reference
from tests.methods import one_hot_logits

SIZES = [(1, 0), (1, 1), (2, 1), (5, 2), (7, 7), (7, 0), (8, 3), (9, 4), (10, 9)]
INF = math.inf


def enumerated(theta, k):
    """All subsets of k items, ``(N, n)``, and their probabilities, ``(..., N)``, in float64."""
    n = theta.shape[-1]
    subsets = torch.tensor([[float(i in chosen) for i in range(n)] for chosen in combinations(range(n), k)]).double()
    return subsets, torch.softmax(theta.double() @ subsets.T, -1)


def recursion(theta, k):
    """log Z in log space, one item after the other."""
    table = torch.full((*theta.shape[:-1], k + 1), -INF, dtype=torch.float64)
    table[..., 0] = 0
    for t in theta.double().unbind(-1):
        table[..., 1:] = torch.logaddexp(table[..., 1:], t.unsqueeze(-1) + table[..., :-1])
    return table[..., k]


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_every_number_against_enumeration(size, dtype):
    n, k = size
    theta, g = 3 * one_hot_logits(4, n, dtype=dtype), one_hot_logits(4, n, seed=1, dtype=dtype)
    law = softdraw.Subset(theta, k)
    z, p = enumerated(theta, k)
    mean = p @ z
    covariance = torch.einsum("bs,si,sj->bij", p, z, z) - mean.unsqueeze(-1) * mean.unsqueeze(-2)
    within = {"rtol": 1e-12, "atol": 1e-12} if dtype == torch.float64 else {"rtol": 3e-6, "atol": 1e-6}
    assert_close(law.log_normalizer().double(), (theta.double() @ z.T).logsumexp(-1), **within)
    assert_close(law.log_prob(z.to(dtype).unsqueeze(1)).double(), p.log().T, **within)
    assert_close(law.mean.double(), mean, **within)
    assert_close(law.entropy().double(), -torch.special.xlogy(p, p).sum(-1), **within)
    assert_close(law.covariance_product(g).double(), (covariance @ g.double().unsqueeze(-1)).squeeze(-1), **within)
    assert_close(law.variance.double(), covariance.diagonal(dim1=-2, dim2=-1), **within)
    assert torch.equal(law.enumerate_support(expand=False).squeeze(1).double(), z)
    assert law.states == len(z)
    assert torch.equal(law.mode.double(), z[p.argmax(-1)])


def test_published_numbers():
    law = softdraw.Subset(torch.tensor([0.0, 1.0, 2.0, -1.0], dtype=torch.float64), 2)
    exact = {"rtol": 0, "atol": 1e-6}
    assert_close(law.log_normalizer().item(), 3.5345339755, rtol=0, atol=1e-9)
    assert_close(law.mean, torch.tensor([0.305587, 0.694413, 0.880797, 0.119203], dtype=torch.float64), **exact)
    p = [0.079299, 0.215556, 0.010732, 0.585942, 0.029172, 0.079299]
    assert_close(law.log_prob(law.enumerate_support()).exp(), torch.tensor(p, dtype=torch.float64), **exact)
    law = softdraw.Subset(torch.tensor([3.0, 0.0, 0.0, 0.0, -3.0], dtype=torch.float64), 2)
    assert_close(law.log_normalizer().item(), 4.1652063613, rtol=0, atol=1e-9)
    assert_close(law.mean[[0, 1, 4]], torch.tensor([0.951101, 0.343684, 0.017846], dtype=torch.float64), **exact)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_identities(dtype):
    theta = 2 * one_hot_logits(20, dtype=dtype)
    law, k = softdraw.Subset(theta, 6), 6
    assert_close(law.mean.sum(), torch.tensor(6, dtype=dtype))
    assert_close(law.mean, 1 - softdraw.Subset(-theta, 20 - k).mean, rtol=0, atol=1e-6)
    shifted = softdraw.Subset(theta + 3, k)
    assert_close(shifted.mean, law.mean)
    assert_close(shifted.log_normalizer(), law.log_normalizer() + 3 * k)
    constant = softdraw.Subset(torch.full((20,), 0.7, dtype=dtype), k)
    assert_close(constant.mean, torch.full((20,), k / 20, dtype=dtype))
    assert_close(constant.log_normalizer().item(), math.log(math.comb(20, k)) + 0.7 * k, rtol=1e-6, atol=0)
    assert_close(law.covariance_product(torch.ones(20, dtype=dtype)), torch.zeros(20, dtype=dtype), rtol=0, atol=1e-6)


def test_indices_are_those_of_the_samples():
    law = softdraw.Subset(one_hot_logits(6, 9), 3)
    z, index = law.sample((5,), seed=2), law.sample_index((5,), seed=2)
    assert index.dtype == torch.int64
    assert (index.diff(dim=-1) > 0).all()
    assert torch.equal(torch.zeros_like(z).scatter(-1, index, 1), z)


@pytest.mark.parametrize("size", [(6, 3), (11, 2), (9, 8)], ids=str)
def test_samples_have_the_law_and_gumbel_top_k_has_another(size):
    n, k = size
    theta = one_hot_logits(n, seed=3, dtype=torch.float32) * 1.5
    z, p = enumerated(theta, k)
    code = 2.0 ** torch.arange(n, dtype=torch.float64)
    order = (z @ code).sort()

    def pvalue(samples):
        counts = torch.zeros(len(z), dtype=torch.float64)
        counts.scatter_add_(
            0, torch.searchsorted(order.values, samples.double() @ code), torch.ones(len(samples)).double()
        )
        expected = p[order.indices] * len(samples)
        few = expected < 5
        observed = torch.cat((counts[~few], counts[few].sum(0, keepdim=True)))
        expected = torch.cat((expected[~few], expected[few].sum(0, keepdim=True)))
        return chisquare(observed[expected > 0], expected[expected > 0]).pvalue

    law = softdraw.Subset(theta, k)
    assert pvalue(law.sample((100_000,), seed=1)) > 1e-4
    assert pvalue(law.expand((100_000,)).sample(seed=2)) > 1e-4
    noisy = theta + softdraw.gumbel_noise((100_000, n), seed=3)
    top = torch.zeros_like(noisy).scatter(-1, noisy.topk(k).indices, 1)
    assert pvalue(top) < 1e-12


def test_the_distance_of_gumbel_top_k():
    """Of 10 items with standard normal logits and k = 5: total variation of 0.14 in the mean of ten seeds."""
    n, k = 10, 5
    distances = []
    for seed in range(10):
        theta = one_hot_logits(n, seed=seed)
        z, p = enumerated(theta, k)
        weights, top = theta.exp(), torch.zeros(2**n, dtype=torch.float64)
        top[0] = 1
        for chosen in range(2**n):  # the probability that the first draws are these, by the last of them
            members = [i for i in range(n) if chosen >> i & 1]
            for i in members if len(members) <= k else []:
                before = chosen & ~(1 << i)
                left = weights.sum() - sum(weights[j] for j in members if j != i)
                top[chosen] += top[before] * weights[i] / left
        q = top[[sum(1 << i for i in range(n) if row[i]) for row in z.tolist()]]
        assert_close(q.sum().item(), 1.0)
        distances.append((p - q).abs().sum().item() / 2)
    assert 0.1 < sum(distances) / 10 < 0.18


def test_large_rows_against_the_recursion():
    for n, k, sd in ((1000, 50, 1.0), (2000, 1000, 1.0), (700, 64, 10.0)):
        theta = sd * one_hot_logits(n, seed=n, dtype=torch.float32)
        exact = recursion(theta, k).item()
        assert abs(softdraw.Subset(theta, k).log_normalizer().item() / exact - 1) < 3e-7  # one rounding and some
        assert abs(softdraw.Subset(theta.double(), k).log_normalizer().item() / exact - 1) < 1e-12


def test_derivatives():
    theta = one_hot_logits(2, 6).requires_grad_()
    g = one_hot_logits(2, 6, seed=1).requires_grad_()
    z = softdraw.Subset(theta, 2).sample(seed=0)
    functions = [
        lambda x: softdraw.Subset(x, 2).log_normalizer(),
        lambda x: softdraw.Subset(x, 2).mean,
        lambda x: softdraw.Subset(x, 2).entropy(),
        lambda x: softdraw.Subset(x, 2).log_prob(z),
        lambda x: kl_divergence(softdraw.Subset(x, 2), softdraw.Subset(x.flip(-1) ** 2, 2)),
    ]
    for f in functions:
        assert torch.autograd.gradcheck(f, theta)
        assert torch.autograd.gradgradcheck(f, theta)
    assert torch.autograd.gradcheck(lambda x, v: softdraw.Subset(x, 2).covariance_product(v), (theta, g))


def test_a_divergence_against_enumeration():
    a, b = one_hot_logits(3, 6), one_hot_logits(3, 6, seed=1)
    (_, p), (_, q) = enumerated(a, 2), enumerated(b, 2)
    assert_close(kl_divergence(softdraw.Subset(a, 2), softdraw.Subset(b, 2)), (p * (p / q).log()).sum(-1))
    law = softdraw.Subset(a, 2)
    assert_close(kl_divergence(law, law.uniform()), math.log(15) - law.entropy())
    forbidden = softdraw.Subset(b, 2, torch.arange(6) > 0)
    assert (kl_divergence(law, forbidden) == INF).all()
    assert kl_divergence(forbidden, law).isfinite().all()


def test_a_row_draws_the_same_wherever_it_is():
    theta = one_hot_logits(6, 9, dtype=torch.float32)
    whole = softdraw.Subset(theta, 4).sample((3,), seed=7)
    assert torch.equal(softdraw.Subset(theta[2:4], 4).sample((3,), seed=7, rows=2), whole[:, 2:4])
    assert torch.equal(softdraw.Subset(theta, 4).sample(seed=7), whole[0])
    flipped = softdraw.Subset(theta.flip(0), 4).sample((3,), seed=7, rows=torch.arange(6).flip(0))
    assert torch.equal(flipped.flip(1), whole)
    wider = torch.cat((theta, torch.full((6, 30), -INF)), -1)  # more leaves, the same nodes
    assert torch.equal(softdraw.Subset(wider, 4).sample((3,), seed=7)[..., :9], whole)
    assert (whole[0] != whole[1]).any()


def test_under_transforms_of_torch():
    theta, g = one_hot_logits(4, 6), one_hot_logits(4, 6, seed=1)

    def numbers(x, v):
        law = softdraw.Subset(x, 2)
        return law.log_normalizer(), law.mean, law.entropy(), law.covariance_product(v), law.mode

    for found, expected in zip(torch.func.vmap(numbers)(theta, g), numbers(theta, g), strict=True):
        assert_close(found, expected)

    def drawn(x):
        return softdraw.draw(softdraw.Subset(x, 2), softdraw.ZGR(), seed=3)

    mapped = torch.func.vmap(drawn)(theta)
    assert torch.equal(mapped, torch.stack([drawn(x) for x in theta]))

    def loss(x):
        return (softdraw.draw(softdraw.Subset(x, 2), softdraw.ZGR(), seed=3) * torch.arange(6)).square().sum()

    expected = torch.autograd.grad(loss(x := theta[0].clone().requires_grad_()), x)[0]
    assert_close(torch.func.grad(loss)(theta[0]), expected)
    assert_close(torch.func.vmap(torch.func.grad(loss))(theta)[0], expected)
    mean = torch.func.jvp(lambda x: softdraw.Subset(x, 2).mean, (theta,), (g,))[1]
    assert_close(mean, softdraw.Subset(theta, 2).covariance_product(g))


class Written(TorchDispatchMode):
    """Counts the numbers that torch's operations write."""

    numbers = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        self.numbers += sum(x.numel() for x in tree_leaves(out) if isinstance(x, torch.Tensor))
        return out


def test_work_is_linear_in_n_k():
    """Of marginals by plain torch, which multiplies the polynomials that the compiled body does, at equal logits, for
    which the search of the tilt takes one step: an item costs the same among more of them, and a larger k adds at most
    in proportion."""

    def an_item(n, k):
        with Written() as written:
            reference.mean(torch.zeros(n), reference.Size(k, k))
        return written.numbers / n

    costs = [an_item(256, k) for k in (8, 16, 32)]
    assert costs[2] - costs[1] <= 2 * (costs[1] - costs[0])
    for k, cost in zip((8, 16), costs, strict=False):
        assert an_item(1024, k) == pytest.approx(cost, rel=0.03)
