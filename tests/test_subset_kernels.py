"""The compiled body of k of n items against plain torch, which tests/test_subset.py holds to enumeration; and rows that
only it can take."""

import math
import resource
import warnings
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

import softdraw
from softdraw.kernels import native, subset_cpu
from softdraw.kernels.reference import subset as reference
from softdraw.kernels.reference.subset import Size
from softdraw.operators import subset
from tests.methods import one_hot_logits
from tests.processes import run
from tests.test_subset import recursion
from tests.test_subset_corners import ROWS

pytestmark = pytest.mark.skipif(native.library() is None, reason="the kernels are not compiled here")
SIDE_BY_SIDE = [(1, 0), (1, 1), (2, 1), (3, 3), (7, 2), (16, 8), (33, 32), (100, 10), (256, 3)]
ALONE = [(300, 12), (700, 0), (777, 400), (1024, 1), (600, 599), (600, 600)]
WITHIN = {torch.float32: {"rtol": 2e-5, "atol": 2e-6}, torch.float64: {"rtol": 1e-10, "atol": 1e-13}}
INF = math.inf


def inputs(rows, n, dtype, sd=1.0):
    theta = sd * one_hot_logits(rows, n, seed=n, dtype=dtype)
    return theta, one_hot_logits(rows, n, seed=n + 1, dtype=dtype), torch.arange(rows).view(rows, 1) + 2**40


def agree(x, k, g, rows, dtype):
    assert_close(subset_cpu.normalizer(x, k)[..., 0].to(dtype), reference.log_normalizer(x, k), equal_nan=True)
    assert_close(subset_cpu.mean(x, k), reference.mean(x, k), equal_nan=True, **WITHIN[dtype])
    found, expected = subset_cpu.covariance(x, k, g), reference.covariance(x, k, g)
    assert_close(found, expected, equal_nan=True, **WITHIN[dtype])
    seed = torch.tensor(2**60 + 3)
    ours, theirs = subset_cpu.sample(x, k, seed, rows, 3), reference.sample(x, k, seed, rows, 3)
    differ = ((ours != theirs) & ~(ours.isnan() & theirs.isnan())).any(-1)
    assert differ.double().mean() < 0.01  # the choice at a node may be nearer to a boundary than rounding is
    count = torch.as_tensor(k.each).expand(x.shape[:-1])
    whole = ours.isnan().any(-1) | reference.too_few(x, k).squeeze(-1)
    assert ((ours.sum(-1) == count) | whole).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", SIDE_BY_SIDE + ALONE, ids=str)
@pytest.mark.parametrize("sd", [1.0, 8.0])
def test_it_equals_plain_torch(size, dtype, sd):
    n, k = size
    agree(*_with_k(inputs(19 if n < 300 else 3, n, dtype, sd), Size(k, k)), dtype)


def _with_k(values, k):
    x, g, rows = values
    return x, k, g, rows


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("n", [4, 400])
def test_its_corners_are_those_of_plain_torch(dtype, n):
    corners = ROWS.to(dtype)
    x = torch.cat((corners, corners[:, :1].expand(-1, n - 4)), -1) if n > 4 else corners
    g, rows = one_hot_logits(*x.shape, dtype=dtype), torch.arange(len(x)).view(-1, 1)
    for k in (0, 1, 2, 3, 4):
        agree(x, Size(k, k), g, rows, dtype)
    each = torch.arange(len(x)) % 5
    agree(x, Size(each, 4), g, rows, dtype)


def test_a_row_has_the_same_bits_in_every_batch_and_on_every_instruction_set():
    for n, k in ((100, 10), (900, 30)):
        x, g, rows = inputs(37, n, torch.float32)
        size, seed, own = Size(k, k), torch.tensor(5), native.isa()

        def every(x, g, rows, size=size, seed=seed):
            yield subset_cpu.normalizer(x, size)
            yield subset_cpu.mean(x, size)
            yield subset_cpu.covariance(x, size, g)
            yield subset_cpu.sample(x, size, seed, rows, 2).movedim(0, 1)

        whole = list(every(x, g, rows))
        for part in (slice(0, 1), slice(3, 20), slice(36, 37)):
            for a, b in zip(every(x[part], g[part], rows[part]), whole, strict=True):
                assert torch.equal(a, b[part])
        threads = torch.get_num_threads()
        try:
            for isa in ("x86-64-v2", "x86-64-v3", "x86-64-v4") if own.startswith("x86") else ():
                try:
                    native.use_isa(isa)
                except ValueError:
                    continue
                assert all(torch.equal(a, b) for a, b in zip(every(x, g, rows), whole, strict=True))
            torch.set_num_threads(1)
            assert all(torch.equal(a, b) for a, b in zip(every(x, g, rows), whole, strict=True))
        finally:
            native.use_isa(own)
            torch.set_num_threads(threads)


def test_a_hundred_thousand_items():
    n, k = 100_000, 1000
    theta = one_hot_logits(n, dtype=torch.float32)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    law = softdraw.Subset(theta, k)
    z, mean = law.sample(seed=0), law.mean
    product = law.covariance_product(theta)
    log_z = law.log_normalizer().item()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 * 1024  # kB
    exact = linear_recursion(theta, k)
    assert abs(log_z / exact - 1) < 1e-7
    assert z.sum() == k
    assert abs(mean.double().sum().item() - k) < 1e-3
    wide = softdraw.Subset(theta.double(), k)
    assert_close(mean.double(), wide.mean, rtol=2e-5, atol=1e-7)
    assert_close(product.double(), wide.covariance_product(theta.double()), rtol=1e-4, atol=1e-6)
    assert abs(product.double().sum().item()) < 1e-3


def linear_recursion(theta, k):
    """log Z in float64, item by item: the probabilities of 0 to k ones among bits with the tilt that equal logits would
    have, so that none of them near k underflows."""
    theta = theta.double()
    tilt = math.log(k / len(theta)) - theta.exp().mean().log().item()
    w = torch.zeros(k + 1, dtype=torch.float64)
    w[0] = 1
    for p in torch.sigmoid(theta + tilt).tolist():
        w[1:] = w[1:] * (1 - p) + w[:-1] * p
        w[0] *= 1 - p
    return (w[k].log() + torch.nn.functional.softplus(theta + tilt).sum() - k * tilt).item()


def test_derivatives_are_those_of_plain_torch(monkeypatch):
    theta = one_hot_logits(3, 7)
    g = one_hot_logits(3, 7, seed=1)
    z = softdraw.Subset(theta, 3).sample(seed=0)

    def derivatives():
        x = theta.clone().requires_grad_()
        law = softdraw.Subset(x, 3)
        total = law.log_normalizer().square().sum() + (law.mean**2 * g).sum() + law.entropy().square().sum()
        total = total + law.log_prob(z).square().sum() + (law.covariance_product(g) ** 2).sum()
        (first,) = torch.autograd.grad(total, x, create_graph=True)
        return first.detach(), torch.autograd.grad((first * g).sum(), x)[0]

    ours = derivatives()
    monkeypatch.setattr(subset, "_compiled", lambda *_: False)
    for a, b in zip(ours, derivatives(), strict=True):
        assert_close(a, b, rtol=1e-9, atol=1e-9)


def test_a_kernel_that_is_wrong_is_not_used(monkeypatch):
    subset_cpu.agrees.cache_clear()
    monkeypatch.setattr(subset_cpu, "mean", lambda x, k: x * 0)
    with pytest.warns(RuntimeWarning, match="computes subsets with plain torch: the compiled mean of 3 of 6 items"):
        assert not subset_cpu.agrees(torch.float32)
    assert_close(softdraw.Subset(torch.zeros(4), 2).mean, torch.full((4,), 0.5))
    subset_cpu.agrees.cache_clear()
    monkeypatch.undo()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert subset_cpu.agrees(torch.float32)


@pytest.mark.parametrize("size", [(1000, 50, 1.0), (2000, 1000, 1.0), (4096, 64, 10.0)], ids=str)
def test_log_z_against_the_recursion(size):
    n, k, sd = size
    theta = sd * one_hot_logits(n, dtype=torch.float32)
    assert abs(softdraw.Subset(theta, k).log_normalizer().item() / recursion(theta, k).item() - 1) < 1e-7


WITHOUT_MEMORY = """
import resource
from pathlib import Path
import torch, softdraw

law = softdraw.Subset(torch.zeros(2_000_000), 1000)
calls = [law.log_normalizer, lambda: law.mean, law.sample, lambda: law.covariance_product(law.theta)]
softdraw.Subset(torch.zeros(400), 3).sample(seed=0)  # what is loaded at first use is loaded
pages = int(Path("/proc/self/statm").read_text().split()[0])
limits = resource.getrlimit(resource.RLIMIT_AS)
resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 80 * 2**20, limits[1]))
for call in calls:
    try:
        call()
    except MemoryError as error:
        print(error)
resource.setrlimit(resource.RLIMIT_AS, limits)
assert softdraw.Subset(torch.zeros(4000), 10).sample(seed=0).sum() == 10
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the size of the process is read from /proc")
def test_memory_that_is_not_there_is_an_error():
    """In a process of its own: one that has freed memory has room in its heap, whatever the limit is."""
    said = run(WITHOUT_MEMORY).splitlines()
    assert len(said) == 4
    assert all("logits of shape (2000000,) with k up to 1000 need a tree" in line for line in said)
