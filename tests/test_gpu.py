"""What only a GPU can show: no synchronisation, graphs, one compilation for many widths, the same draws as on a CPU."""

from __future__ import annotations

import itertools

import pytest
import torch

import softdraw
from softdraw import kernels

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device is here")]


def test_the_triton_body_is_picked():
    pytest.importorskip("triton", reason="the extra softdraw[triton] is not installed")
    assert kernels.body(torch.device("cuda")).__name__ == "softdraw.kernels.triton", kernels.reason(
        torch.device("cuda")
    )


@pytest.mark.parametrize("hard", [False, True])
def test_a_draw_waits_for_nothing(hard):
    x, mask = torch.randn(64, 100, device="cuda", requires_grad=True), torch.ones(64, 100, device="cuda") > 0
    tau, grad = torch.full((64, 1), 0.5, device="cuda"), torch.randn(64, 100, device="cuda")

    def draw():
        y = softdraw.gumbel_softmax(x, tau, hard, mask=mask)
        torch.autograd.grad(y, x, grad)
        softdraw.gumbel_max(x.detach(), mask=mask)

    draw()  # the first call compiles and loads
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        draw()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_a_graph_draws_anew_at_every_replay():
    x = torch.zeros(1000, 16, device="cuda")
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        softdraw.gumbel_max(x), softdraw.gumbel_softmax(x, 1.0)  # compiled before the capture
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        index, y = softdraw.gumbel_max(x), softdraw.gumbel_softmax(x, 1.0)
    draws = []
    for _ in range(3):
        graph.replay()
        draws.append((index.clone(), y.clone()))
    for (i, y), (j, z) in itertools.pairwise(draws):
        # Two independent uniform draws of 1000 agree in 62.5 +- 7.7 places: 120 is 7 deviations away.
        assert int((i == j).sum()) < 120
        assert not torch.equal(y, z)


@pytest.mark.parametrize("hard", [False, True])
def test_compiled_without_a_graph_break(hard):
    x, seed = torch.randn(50, 33, device="cuda"), torch.tensor(7, device="cuda")

    def loss(x):
        return (softdraw.gumbel_softmax(x, 0.7, hard, seed=seed) * torch.arange(33, device="cuda")).sum()

    a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
    value = loss(a)
    compiled = torch.compile(loss, fullgraph=True)(b)
    torch.testing.assert_close(compiled, value)
    value.backward()
    compiled.backward()
    torch.testing.assert_close(a.grad, b.grad, rtol=1e-4, atol=1e-5)


def test_the_noise_of_cpu_and_gpu_is_the_same():
    seed, rows = torch.tensor(3), torch.tensor([[0], [2**40]])
    stream = torch.tensor(0)
    cpu = kernels.reference.gumbel(seed, rows, 5000, 0, stream, torch.float64)
    gpu = kernels.body(torch.device("cuda")).gumbel(seed.cuda(), rows.cuda(), 5000, 0, stream.cuda(), torch.float64)
    torch.testing.assert_close(gpu.cpu(), cpu, rtol=1e-13, atol=1e-13)  # a word that differs by 1 shows at 1e-10


def test_ten_million_draws_have_the_index_of_the_cpu():
    """Equal save where the two best scores are within 16 units in the last place of each other."""
    rows, cols = 10**6, 5
    logits = torch.linspace(-1, 1, cols).expand(rows, cols)
    for part in range(10):
        mine = softdraw.gumbel_max(logits.cuda(), seed=5, rows=part * rows).cpu()
        theirs = softdraw.gumbel_max(logits, seed=5, rows=part * rows)
        for row in (mine != theirs).nonzero().flatten().tolist():
            ids = torch.tensor([[part * rows + row]])
            s = kernels.reference._scores(logits[:1], torch.tensor(5), ids, None, torch.tensor(0))[0]
            assert abs(s[mine[row]] - s[theirs[row]]) <= 16 * torch.finfo(s.dtype).eps * s.abs().max().clamp_min(1)


def test_annealing_and_ragged_widths_compile_nothing_new():
    pytest.importorskip("triton", reason="the extra softdraw[triton] is not installed")
    from softdraw.kernels.triton import device

    def compiled():
        caches = [c for k in (device.draw, device.jacobian) for c in k.device_caches.values()]
        return sum(len(c[0]) for c in caches)

    def draw(cols, tau):
        x = torch.randn(8, cols, device="cuda", requires_grad=True)
        softdraw.gumbel_softmax(x, tau).sum().backward()

    for cols in (1001, 1020):  # one that vectors fit, and one that they do not
        draw(cols, 1.0)
    before = compiled()
    for i, cols in enumerate((515, 516, 777, 1000, 1008, 1023, 1024)):
        draw(cols, 1 / (1 + i))
    assert compiled() == before


def test_the_benchmark_times_the_gpu():
    from softdraw.bench import Setting, measure

    for operation in ("soft", "hard+backward", "index"):
        result = measure(Setting(operation, 4096, 1024, torch.float32, torch.get_num_threads(), "cuda"), rounds=3)
        assert {"clone", "softmax"} <= set(result.ratios)
        # Nothing that reads 16 MiB takes less than a microsecond.
        assert all(seconds > 1e-6 for seconds in result.seconds.values())
