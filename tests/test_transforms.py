"""torch.compile, export, torch.func, checkpointing, fake tensors, deterministic mode, DDP and FSDP2."""

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from functorch.compile import make_boxed_func
from torch._dynamo.backends.common import aot_autograd
from torch._dynamo.testing import CompileCounter
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

import softdraw


def make(shape, dtype=torch.float32, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


@pytest.fixture(autouse=True)
def _fresh_compiler():
    torch._dynamo.reset()


def grads(function, logits, weight):
    leaf = logits.clone().requires_grad_()
    y = function(leaf)
    (y * weight).sum().backward()
    return y.detach(), leaf.grad


# torch.compile


@pytest.mark.parametrize("hard", [False, True])
@pytest.mark.parametrize(
    ("backend", "dtype"),
    [("aot_eager", torch.float32), ("aot_eager", torch.bfloat16), ("inductor", torch.float32)],
)
def test_compiled_is_eager(hard, dtype, backend):
    logits, weight, mask = make((6, 4, 5), dtype), make((6, 4, 5), dtype, seed=1), make((1, 5), seed=2) > -1
    ids = torch.arange(50, 80).view(6, 5)

    def draw(x):
        return softdraw.gumbel_softmax(x, 0.5, hard, dim=1, seed=3, rows=ids)

    def masked(x):
        return softdraw.gumbel_softmax(x, 0.5, hard, mask=mask, seed=3)

    for function in (draw, masked):
        y, grad = grads(function, logits, weight)
        compiled_y, compiled_grad = grads(torch.compile(function, fullgraph=True, backend=backend), logits, weight)
        assert torch.equal(compiled_y, y)
        torch.testing.assert_close(compiled_grad, grad)


@pytest.mark.parametrize("hard", [False, True])
def test_compiled_backward_is_one_operator(hard):
    """The graphs that a compiler is given: the draw in one, its gradient in the other, each a node of ours."""
    graphs = []

    def keep(graph, inputs):
        graphs.append([str(node.target) for node in graph.graph.nodes if "softdraw" in str(node.target)])
        return make_boxed_func(graph)

    backend = aot_autograd(fw_compiler=keep, bw_compiler=keep)
    compiled = torch.compile(lambda x: softdraw.gumbel_softmax(x, 0.5, hard, seed=3), fullgraph=True, backend=backend)
    logits, weight = make((6, 5)), make((6, 5), seed=1)
    _, grad = grads(compiled, logits, weight)
    kind = "hard" if hard else "soft"
    assert graphs == [[f"softdraw.gumbel_softmax_{kind}.default"], [f"softdraw.gumbel_softmax_{kind}_backward.default"]]
    torch.testing.assert_close(grad, grads(lambda x: softdraw.gumbel_softmax(x, 0.5, hard, seed=3), logits, weight)[1])


def test_compiled_draws_are_fresh_and_follow_manual_seed():
    compiled = torch.compile(softdraw.gumbel_softmax, fullgraph=True)
    logits = make((6, 5))
    torch.manual_seed(0)
    a, b = compiled(logits, 0.5), compiled(logits, 0.5)
    torch.manual_seed(0)
    assert torch.equal(a, softdraw.gumbel_softmax(logits, 0.5))
    assert not torch.equal(a, b)


def test_annealing_and_ragged_batches_compile_a_constant_number_of_times():
    counter = CompileCounter()
    compiled = torch.compile(lambda x, tau: softdraw.gumbel_softmax(x, tau), fullgraph=True, backend=counter)
    for step in range(8):
        compiled(make((6, 5)), torch.tensor(1.0 - 0.1 * step))
    assert counter.frame_count == 1
    for step in range(8):
        compiled(make((6 + step, 5)), 1.0 - 0.1 * step)
    assert counter.frame_count <= 4  # a number for a tensor, then once each to make tau and the batch dynamic


def test_compiled_index_and_noise():
    logits = make((4, 6))
    index = torch.compile(lambda x: softdraw.gumbel_max(x, sample_shape=(3,), seed=1), fullgraph=True)
    assert torch.equal(index(logits), softdraw.gumbel_max(logits, sample_shape=(3,), seed=1))
    noise = torch.compile(lambda s: softdraw.gumbel_noise((2, 5), seed=s, rows=4), fullgraph=True)
    assert torch.equal(noise(torch.tensor(9)), softdraw.gumbel_noise((2, 5), seed=9, rows=4))
    through = torch.compile(softdraw.straight_through, fullgraph=True)
    hard, soft = make((3,)).round(), make((3,)).requires_grad_()
    y = through(hard, soft)
    assert torch.equal(y, hard)
    assert torch.equal(torch.autograd.grad(y.sum(), soft)[0], torch.ones(3))


def test_a_bad_tau_is_refused_in_a_compiled_graph():
    compiled = torch.compile(
        lambda x, tau: softdraw.gumbel_softmax(x, tau, seed=0), fullgraph=True, backend="aot_eager"
    )
    with pytest.raises((ValueError, RuntimeError), match="tau must be positive and finite"):
        compiled(make((2, 3)), torch.tensor(-1.0))


# torch.export


class Draws(torch.nn.Module):
    def __init__(self, hard, seed):
        super().__init__()
        self.hard, self.seed = hard, seed

    def forward(self, x):
        return softdraw.gumbel_softmax(x, 0.7, self.hard, seed=self.seed)


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("hard", [False, True])
def test_exported_program_draws_and_trains(hard, strict):
    batch = torch.export.Dim("batch", min=2, max=64)
    program = torch.export.export(Draws(hard, 1), (make((3, 4)),), dynamic_shapes=({0: batch},), strict=strict)
    logits, weight = make((7, 4), seed=1), make((7, 4), seed=2)
    for got, want in zip(grads(program.module(), logits, weight), grads(Draws(hard, 1), logits, weight), strict=True):
        torch.testing.assert_close(got, want)
    fresh = torch.export.export(Draws(hard, None), (make((3, 4)),), strict=strict).module()
    assert not torch.equal(fresh(make((3, 4))), fresh(make((3, 4)))) or hard


# torch.func


@pytest.mark.parametrize("hard", [False, True])
def test_vmap_with_a_seed_is_a_loop(hard):
    logits, tau = make((5, 3, 4)), torch.rand(5) + 0.3
    mask = make((5, 3, 4), seed=1) > -1

    def draw(x, t, m):
        return softdraw.gumbel_softmax(x, t, hard, mask=m, seed=4, rows=2)

    want = torch.stack([draw(x, t, m) for x, t, m in zip(logits, tau, mask, strict=True)])
    torch.testing.assert_close(torch.func.vmap(draw)(logits, tau, mask), want)
    torch.testing.assert_close(
        torch.func.vmap(draw, in_dims=(1, None, 1))(logits, tau[0], mask)[0], draw(logits[:, 0], tau[0], mask[:, 0])
    )
    seeds = torch.arange(3)
    got = torch.func.vmap(lambda s: softdraw.gumbel_softmax(logits, 0.5, hard, seed=s))(seeds)
    torch.testing.assert_close(
        got, torch.stack([softdraw.gumbel_softmax(logits, 0.5, hard, seed=int(s)) for s in seeds])
    )


@pytest.mark.parametrize("hard", [False, True])
def test_vmap_in_both_random_modes(hard):
    logits = make((3, 4)).expand(6, 3, 4)

    def draw(x):
        return softdraw.gumbel_softmax(x, 0.5, hard)

    torch.manual_seed(1)
    same = torch.func.vmap(draw, randomness="same")(logits)
    torch.manual_seed(1)
    assert torch.equal(same[0], draw(logits[0]))
    assert torch.equal(same, same[:1].expand_as(same))
    different = torch.func.vmap(lambda x: softdraw.gumbel_softmax(x, 0.5), randomness="different")(logits)
    assert all(not torch.equal(different[0], other) for other in different[1:])
    with pytest.raises(RuntimeError, match="randomness"):
        torch.func.vmap(draw)(logits)


def test_vmap_index_noise_and_nesting():
    logits = make((5, 3, 4))
    got = torch.func.vmap(lambda x: softdraw.gumbel_max(x, sample_shape=(2,), seed=1))(logits)
    assert torch.equal(got, torch.stack([softdraw.gumbel_max(x, sample_shape=(2,), seed=1) for x in logits]))
    seeds = torch.arange(4)
    got = torch.func.vmap(lambda s: softdraw.gumbel_noise((2, 3), seed=s, rows=torch.tensor([5, 9])))(seeds)
    want = [softdraw.gumbel_noise((2, 3), seed=int(s), rows=torch.tensor([5, 9])) for s in seeds]
    assert torch.equal(got, torch.stack(want))
    nested = torch.func.vmap(torch.func.vmap(lambda x: softdraw.gumbel_softmax(x, 0.5, seed=2)))(logits)
    torch.testing.assert_close(nested[3, 1], softdraw.gumbel_softmax(logits[3, 1], 0.5, seed=2))
    through = torch.func.vmap(softdraw.straight_through)(logits.round(), logits)
    assert torch.equal(through, logits.round())


@pytest.mark.parametrize("hard", [False, True])
def test_per_example_gradients(hard):
    logits, weight = make((5, 3, 4)), make((3, 4), seed=1)

    def loss(x):
        return (softdraw.gumbel_softmax(x, 0.5, hard, seed=2) * weight).sum()

    got = torch.func.vmap(torch.func.grad(loss))(logits)
    want = torch.stack([torch.func.grad(loss)(x) for x in logits])
    torch.testing.assert_close(got, want)
    leaf = logits[1].clone().requires_grad_()
    loss(leaf).backward()
    torch.testing.assert_close(want[1], leaf.grad)
    jacobian = torch.func.jacrev(lambda x: softdraw.gumbel_softmax(x, 0.5, seed=2))(logits[0, 0])
    y = softdraw.gumbel_softmax(logits[0, 0], 0.5, seed=2)
    torch.testing.assert_close(jacobian, (torch.diag(y) - torch.outer(y, y)) / 0.5)


def test_torch_func_under_a_dispatch_mode():
    def loss(x):
        return softdraw.gumbel_softmax(x, 0.5, seed=2)[..., 0].sum()

    want = torch.func.grad(loss)(make((3, 4)))
    with FlopCounterMode(display=False):
        torch.testing.assert_close(torch.func.grad(loss)(make((3, 4))), want)


# Checkpointing


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("hard", [False, True])
@pytest.mark.parametrize(("seed", "preserve"), [(None, True), (3, True), (3, False)])
def test_checkpoint_gives_the_same_gradient(seed, preserve, hard, reentrant):
    # Without preserved RNG state the seed has to be given: nothing else survives to the recomputation.
    logits, weight = make((6, 5)), make((6, 5), seed=1)

    def draw(x):
        return (softdraw.gumbel_softmax(x.sin(), 0.5, hard, seed=seed) ** 2).cos()

    torch.manual_seed(2)
    want = grads(draw, logits, weight)
    torch.manual_seed(2)
    got = grads(lambda x: checkpoint(draw, x, preserve_rng_state=preserve, use_reentrant=reentrant), logits, weight)
    assert torch.equal(got[0], want[0])
    torch.testing.assert_close(got[1], want[1])


# Fake tensors, deterministic mode


def test_fake_tensors():
    with FakeTensorMode():
        logits = torch.randn(3, 4, 5, requires_grad=True)
        y = softdraw.gumbel_softmax(logits, 0.5, True, dim=1, seed=0)
        y.sum().backward()
        assert y.shape == logits.grad.shape == (3, 4, 5)
        assert softdraw.gumbel_max(logits, sample_shape=(2,)).shape == (2, 3, 4)


@pytest.mark.parametrize("hard", [False, True])
def test_deterministic_mode(hard):
    logits, weight = make((6, 5)), make((6, 5), seed=1)
    want = grads(lambda x: softdraw.gumbel_softmax(x, 0.5, hard, seed=1), logits, weight)
    torch.use_deterministic_algorithms(True)
    try:
        got = grads(lambda x: softdraw.gumbel_softmax(x, 0.5, hard, seed=1), logits, weight)
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(map(torch.equal, got, want))


# Data parallelism: the draw of a sample does not know its rank


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.linear = torch.nn.Linear(6, 8)
        for parameter in self.linear.parameters():
            torch.nn.init.uniform_(parameter, -1, 1, generator=generator)
        self.choose = softdraw.nn.GumbelSoftmax(tau=0.5, hard=True)
        self.tau = softdraw.nn.LearnedTau(init=0.5)

    def forward(self, x, ids):
        return self.choose(self.linear(x), tau=self.tau(), seed=5, rows=ids)


def step(model, ids):
    x, target = make((12, 6)), make((12, 8), seed=1)
    y = model(x[ids], ids)
    (y * target[ids]).sum(-1).mean().backward()
    return y.detach()


def parallel_worker(rank, world, wrap, store, queue):
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world)
    model = Model()
    if wrap == "ddp":
        model = torch.nn.parallel.DistributedDataParallel(model)
    else:
        from torch.distributed.fsdp import fully_shard

        fully_shard(model, mesh=dist.init_device_mesh("cpu", (world,)))
    y = step(model, torch.arange(rank, 12, world))
    found = [p.grad.full_tensor() if hasattr(p.grad, "full_tensor") else p.grad for p in model.parameters()]
    queue.put((rank, y.numpy(), [grad.numpy() for grad in found]))
    dist.barrier()
    dist.destroy_process_group()


@pytest.mark.parametrize("wrap", ["ddp", "fsdp2"])
def test_data_parallel_equals_one_process(wrap, tmp_path, ranks_results):
    alone = Model()
    want = step(alone, torch.arange(12))
    context = mp.get_context("spawn")
    queue = context.Queue()
    workers = [
        context.Process(daemon=True, target=parallel_worker, args=(r, 2, wrap, str(tmp_path / "store"), queue))
        for r in range(2)
    ]
    results = ranks_results(workers, queue)
    for rank, y, found in results:
        assert torch.equal(torch.from_numpy(y), want[rank::2])
        for grad, parameter in zip(found, alone.parameters(), strict=True):
            torch.testing.assert_close(torch.from_numpy(grad), parameter.grad)
