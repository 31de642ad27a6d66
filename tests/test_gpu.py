"""What only a GPU can show: no synchronisation, graphs, one compilation for many widths, the same draws as on a CPU."""

from __future__ import annotations

import itertools

import pytest
import torch

import softdraw
from softdraw import kernels
from softdraw.arguments import Draw

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device is here"),
    # What a version of torch says of itself (of its synchronisation mode, of a slow reduction) is no matter here.
    pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning"),
]
DEVICE = "cuda"


def gradient(x, grad, tau=0.7, hard=False, **keys):
    """A draw and the gradient that it passes on."""
    leaf = x.detach().requires_grad_()
    y = softdraw.gumbel_softmax(leaf, tau, hard, **keys)
    return y, torch.autograd.grad(y, leaf, grad)[0]


def test_the_triton_body_is_picked():
    pytest.importorskip("triton", reason="the extra softdraw[triton] is not installed")
    device = torch.device("cuda")
    assert kernels.body(device).__name__ == "softdraw.kernels.triton", kernels.reason(device)


@pytest.mark.parametrize("cols", [100, 20000])
@pytest.mark.parametrize("hard", [False, True])
def test_a_draw_waits_for_nothing(hard, cols):
    x, mask = torch.randn(64, cols, device=DEVICE), torch.ones(64, cols, device=DEVICE) > 0
    tau, grad = torch.full((64, 1), 0.5, device=DEVICE), torch.randn(64, cols, device=DEVICE)
    seed = torch.tensor(3, device=DEVICE)

    def draw():
        gradient(x, grad, tau, hard, mask=mask)
        softdraw.gumbel_max(x, mask=mask)
        leaf = x.detach().requires_grad_()
        for rule in (softdraw.ZGR(), softdraw.GumbelRao(0.5, 2)):
            torch.autograd.grad(softdraw.draw(leaf, rule), leaf, grad)
        softdraw.losses.kl_to_uniform(leaf).backward()
        seeds = softdraw.fold_in(seed, torch.arange(64, device=DEVICE), "token")
        law = softdraw.draw_index(leaf, temperature=0.7, top_k=50, min_p=0.01, seed=seeds)
        torch.autograd.grad(law.log_prob.sum() + law.entropy.sum(), leaf)
        softdraw.gumbel_topk(x, 5, temperature=tau, seed=seeds)

    draw()  # the first call compiles and loads
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        draw()
        with pytest.raises(RuntimeError, match="synchroniz"):  # it does tell
            tau.sum().item()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def captured(call):
    """A CUDA graph of ``call``, which was compiled before the capture, and what the graph writes."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        call()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        made = call()
    return graph, made


def test_a_graph_draws_anew_at_every_replay():
    x, grad = torch.zeros(1000, 16, device=DEVICE), torch.randn(1000, 16, device=DEVICE)

    def draw():
        return softdraw.gumbel_max(x), *gradient(x, grad), *gradient(x, grad, hard=True)

    graph, made = captured(draw)
    draws = []
    for _ in range(3):
        graph.replay()
        draws.append([t.clone() for t in made])
    for a, b in itertools.pairwise(draws):
        # Two independent uniform draws of 1000 agree in 62.5 +- 7.7 places: 120 is 7 deviations away.
        assert int((a[0] == b[0]).sum()) < 120
        assert all(not torch.equal(p, q) for p, q in zip(a, b, strict=True))
    for _, y, dy, z, dz in draws:
        torch.testing.assert_close(y.sum(-1), torch.ones(1000, device=DEVICE))
        assert torch.equal(z.sum(-1), torch.ones(1000, device=DEVICE))
        for d in (dy, dz):  # a gradient of softmax sums to 0 over a row
            torch.testing.assert_close(d.sum(-1), torch.zeros(1000, device=DEVICE), rtol=0, atol=1e-5)


def test_a_graph_folds_seeds_from_what_its_inputs_hold_at_the_replay():
    """Seed and ids are read by the device: the replayed graph gives what eager code gives of new ones, and eager code
    what the CPU gives."""
    x = torch.randn(8, 300, device=DEVICE)
    seed, ids = torch.tensor(3, device=DEVICE), torch.arange(8, device=DEVICE)

    def draw(x, seed, ids):
        seeds = softdraw.fold_in(seed, "rollout", ids, 7)
        law = softdraw.draw_index(x, temperature=0.7, seed=seeds)
        return seeds, *law, softdraw.gumbel_topk(x, 5, seed=seeds), softdraw.uniform_at(ids, seed=seeds)

    graph, made = captured(lambda: draw(x, seed, ids))
    seen = []
    for number in (4, -(2**40)):
        seed.fill_(number)
        ids.add_(2**33)
        graph.replay()
        seen.append([t.clone() for t in made])
        for mine, eager in zip(made, draw(x, seed, ids), strict=True):
            torch.testing.assert_close(mine, eager, rtol=0, atol=0)
        for mine, there in zip(made, draw(x.cpu(), seed.cpu(), ids.cpu()), strict=True):
            torch.testing.assert_close(mine.cpu(), there, rtol=1e-5, atol=1e-5)
    assert not torch.equal(seen[0][0], seen[1][0])


@pytest.mark.parametrize("shape", [(64, 1000), (4, 131072)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_index_draws_are_those_of_the_cpu(shape, dtype):
    """Indices where no two scores are within rounding of each other, which no row here has; the law's numbers."""
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    options = {"temperature": 0.7, "seed": 3, "sample_shape": (2,)}
    made = [softdraw.draw_index(t, **options) for t in (x, x.to(DEVICE))]
    for here, there in zip(*made, strict=True):
        torch.testing.assert_close(there.cpu(), here, rtol=1e-5, atol=1e-4)
    here, there = (softdraw.gumbel_topk(t, 5, **options).cpu() for t in (x, x.to(DEVICE)))
    assert (here == there).double().mean() > 0.999


@pytest.mark.parametrize("hard", [False, True])
def test_compiled_without_a_graph_break(hard):
    x, seed = torch.randn(50, 33, device=DEVICE), torch.tensor(7, device=DEVICE)
    weights = torch.arange(33, device=DEVICE)

    def loss(x, seed):
        return (softdraw.gumbel_softmax(x, 0.7, hard, seed=seed) * weights).sum()

    def fresh(x):
        return softdraw.gumbel_softmax(x, 0.7, hard)

    a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
    value = loss(a, seed)
    compiled = torch.compile(loss, fullgraph=True)(b, seed)
    torch.testing.assert_close(compiled, value, rtol=1e-5, atol=0)
    value.backward()
    compiled.backward()
    torch.testing.assert_close(a.grad, b.grad, rtol=1e-4, atol=1e-5)
    draw = torch.compile(fresh, fullgraph=True)
    assert not torch.equal(draw(x), draw(x))


def test_the_noise_of_cpu_and_gpu_is_the_same():
    seed, rows, stream = torch.tensor(3), torch.tensor([[0], [2**40]]), torch.tensor(5)
    cpu = kernels.reference.gumbel(seed, rows, 5000, 6, stream, torch.float64)
    there = (t.to(DEVICE) for t in (seed, rows, stream))
    seed, rows, stream = there
    gpu = kernels.body(torch.device(DEVICE)).gumbel(seed, rows, 5000, 6, stream, torch.float64).cpu()
    torch.testing.assert_close(gpu, cpu, rtol=1e-13, atol=1e-13)  # a word that differs by 1 shows at 1e-10


def test_ten_million_draws_have_the_index_of_the_cpu():
    """Equal save where the two best scores are within 16 units in the last place of each other."""
    rows = 10**6
    logits = torch.linspace(-1, 1, 5).expand(rows, 5)
    for part in range(10):
        mine = softdraw.gumbel_max(logits.to(DEVICE), seed=5, rows=part * rows).cpu()
        theirs = softdraw.gumbel_max(logits, seed=5, rows=part * rows)
        for row in (mine != theirs).nonzero().flatten().tolist():
            ids = torch.tensor([[part * rows + row]])
            s = kernels.reference.scores(Draw(logits[:1], 1.0, torch.tensor(5), ids))[0]
            assert abs(s[mine[row]] - s[theirs[row]]) <= 16 * torch.finfo(s.dtype).eps * s.abs().max().clamp_min(1)


@pytest.mark.parametrize("cols", [16, 1000, 20000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_y_of_cpu_and_gpu_is_that_of_float64(dtype, cols):
    """Of the same float32 noise. A score is off by 10 units in its last place at most, which an exponential divides by
    tau, and the sum of the row likewise; then y is rounded once."""
    tau = 0.5
    x, seed = torch.randn(50, cols, generator=torch.Generator().manual_seed(0)).to(dtype), torch.tensor(3)
    s = kernels.reference.scores(Draw(x, 1.0, seed)).double()
    exact = (s / tau).softmax(-1)
    relative = 2 * 10 * 2**-23 * s.abs().amax(-1, keepdim=True) / tau + torch.finfo(dtype).eps
    for device in ("cpu", DEVICE):
        y = softdraw.gumbel_softmax(x.to(device), tau, seed=3).cpu().double()
        assert ((y - exact).abs() <= relative * exact + torch.finfo(dtype).tiny).all(), device


def test_annealing_and_ragged_widths_compile_nothing_new():
    pytest.importorskip("triton", reason="the extra softdraw[triton] is not installed")
    from softdraw.kernels.triton import bits, draws, gradients, pass_kernels, philox, rao, rules

    modules = (bits, draws, gradients, pass_kernels, philox, rao, rules)
    kernels = [k for m in modules for k in vars(m).values() if hasattr(k, "device_caches")]
    assert kernels

    def compiled():
        return sum(len(cache[0]) for kernel in kernels for cache in kernel.device_caches.values())

    def draw(rows, cols, tau):
        x, grad = torch.randn(rows, cols, device=DEVICE), torch.randn(rows, cols, device=DEVICE)
        for hard in (False, True):
            gradient(x, grad, tau, hard)
        softdraw.gumbel_max(x)
        leaf = x.detach().requires_grad_()
        for rule in (softdraw.ZGR(), softdraw.ReinMax(tau), softdraw.GumbelRao(tau, 2)):
            torch.autograd.grad(softdraw.draw(leaf, rule), leaf, grad)
        softdraw.losses.kl_to_uniform(leaf).backward()

    warm = (1001, 1020, 20001, 20000)  # ones that vectors fit, and ones that they do not
    for cols in warm:
        draw(8, cols, 1.0)
    before = compiled()
    assert before >= 4
    for i, cols in enumerate((515, 516, 777, 1000, 1008, 1023, 1024, 16385, 30000, 40004)):
        draw(3 + i, cols, 1 / (1 + i))
    assert compiled() == before


RULES = [
    softdraw.StraightThrough(0.7),
    softdraw.ZGR(),
    softdraw.ReinMax(1.1),
    softdraw.GappedStraightThrough(0.7),
    softdraw.GumbelRao(0.7, 3),
    softdraw.ReinMaxRao(0.7, 3),
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: type(rule).__name__)
@pytest.mark.parametrize("cols", [None, 10, 1000, 20000])
def test_a_rule_has_the_gradient_of_the_cpu(rule, cols):
    """Of one-hots, and (None) of bits."""
    g = torch.Generator().manual_seed(0)
    shape = (64,) if cols is None else (8, cols)
    x, grad = torch.randn(shape, generator=g), torch.randn(2, *shape, generator=g)

    def run(device):
        leaf = x.to(device).requires_grad_()
        law = softdraw.Bernoulli(leaf) if cols is None else leaf
        y = softdraw.draw(law, rule, (2,), seed=3)
        return y.detach(), torch.autograd.grad(y, leaf, grad.to(device))[0]

    (y, dx), (there, dthere) = run("cpu"), run(DEVICE)
    assert torch.equal(y, there.cpu())
    torch.testing.assert_close(dthere.cpu(), dx, rtol=1e-3, atol=1e-4)


def test_losses_of_logits_are_those_of_the_cpu():
    g = torch.Generator().manual_seed(0)
    x, target = 3 * torch.randn(64, 100, generator=g), torch.randint(100, (64,), generator=g)
    prior = torch.randn(100, generator=g)
    losses = (
        lambda x: softdraw.losses.entropy(x),
        lambda x: softdraw.losses.kl_to_uniform(x),
        lambda x: softdraw.losses.categorical_nll(x, target.to(x.device)),
        lambda x: softdraw.losses.kl_to_prior(x, prior.to(x.device)),
    )
    for loss in losses:
        made = []
        for device in ("cpu", DEVICE):
            leaf = x.to(device).requires_grad_()
            value = loss(leaf)
            made.append([value.detach().cpu(), torch.autograd.grad(value, leaf)[0].cpu()])
        for mine, theirs in zip(*made, strict=True):
            torch.testing.assert_close(theirs, mine, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("operation", ["soft", "hard+backward", "index"])
def test_the_benchmark_times_the_gpu(operation):
    from softdraw.bench import Setting, measure

    result = measure(Setting(operation, 4096, 1024, torch.float32, torch.get_num_threads(), "cuda"), rounds=3)
    assert {"clone", "softmax"} <= set(result.ratios)
    # Nothing that reads 16 MiB takes less than a microsecond.
    assert all(seconds > 1e-6 for seconds in result.seconds.values())
