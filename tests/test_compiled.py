"""Draws in compiled graphs."""

import pytest
import torch
from functorch.compile import make_boxed_func
from leaves import grads, make
from torch._dynamo.backends.common import aot_autograd

import softdraw


@pytest.fixture(autouse=True)
def _fresh_compiler():
    torch._dynamo.reset()


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


def test_a_batch_whose_size_is_known_at_run_time_only():
    """Rows that a mask picks: nothing may be asked of their number while compiling."""
    logits, keep = make((6, 5)), torch.tensor([True, False, True, True, False, True])

    def draw(x, keep):
        return softdraw.gumbel_softmax(x[keep], seed=1), softdraw.gumbel_max(x[keep], seed=1)

    with torch._dynamo.config.patch(capture_dynamic_output_shape_ops=True):
        compiled = torch.compile(draw, backend="aot_eager", fullgraph=True)(logits, keep)
    for got, expected in zip(compiled, draw(logits, keep), strict=True):
        torch.testing.assert_close(got, expected)
