"""Laws and losses in graphs of torch.compile: each pass is one operator each way, with the numbers of eager code."""

from __future__ import annotations

import math

import pytest
import torch
from functorch.compile import make_boxed_func  # pyright: ignore
from functorch.compile import min_cut_rematerialization_partition as _as_inductor_does
from torch._dynamo.backends.common import aot_autograd

import softdraw
from softdraw import losses
from softdraw.kernels import native

pytestmark = pytest.mark.skipif(native.library() is None, reason="the kernels are not compiled here")
KEEP = torch.tensor([True, True, False, True, True, True])
WEIGHT = torch.tensor([1.0, 0.5, 2.0, 0.0, 1.0, 3.0])
EACH = torch.arange(30.0).view(6, 5) / 10


def over_rows(x, prior, index):
    law, other = softdraw.OneHotCategorical(x), softdraw.OneHotCategorical(prior)
    one_hots = torch.nn.functional.one_hot(index, 5).to(x.dtype)
    return {
        "entropy": losses.entropy(x, mask=KEEP),
        "kl_to_uniform": losses.kl_to_uniform(x, weight=WEIGHT, reduction="sum"),
        "kl_to_prior": losses.kl_to_prior(x, prior, reduction="none"),
        "categorical_nll": losses.categorical_nll(x, index, reduction="none"),
        "diversity": losses.diversity(x, mask=KEEP),
        "load_balance": losses.load_balance(x),
        "law.log_prob": law.log_prob(one_hots),
        "law.entropy": law.entropy(),
        "law.kl": torch.distributions.kl_divergence(law, other),
    }


def over_bits(x, prior, index):
    law, other, target = softdraw.Bernoulli(x), softdraw.Bernoulli(prior), (EACH % 1).to(torch.float32)
    return {
        "bernoulli_nll": losses.bernoulli_nll(x, target, 2.0, weight=EACH, mask=KEEP.unsqueeze(-1)),
        "each": losses.bernoulli_nll(x, target, torch.tensor(3.0), reduction="none"),
        "keep_ratio": losses.keep_ratio(x, 0.3),
        "shares": losses.keep_ratio(x, 0.3, dim=0, weight=EACH, reduction="none"),
        "law.log_prob": law.log_prob((target > 0.5).to(x.dtype)),
        "law.entropy": law.entropy(),
        "law.variance": law.variance,
        "law.kl": torch.distributions.kl_divergence(law, other),
    }


def logits(special, dtype):
    x = torch.randn(6, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    prior = torch.randn(6, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    if special:  # which the passes over rows refuse: their formula takes them, inside of the operator
        x[0, 1], x[1, 2], x[3, :], x[4, 0] = math.inf, -math.inf, -math.inf, math.nan
        prior[1, 3] = -math.inf
    return x.to(dtype), prior.to(dtype)


@pytest.mark.parametrize(
    ("function", "dtype"),
    [(over_rows, torch.float32), (over_bits, torch.float32), (over_bits, torch.bfloat16)],
    ids=["rows", "bits", "bits-bfloat16"],
)
def test_a_compiled_pass_is_one_operator_with_the_numbers_of_eager_code(function, dtype):
    nodes = []

    def keep(graph, inputs):
        nodes.append([str(node.target) for node in graph.graph.nodes if "_pass" in str(node.target)])
        return graph

    torch.compiler.reset()
    backend = aot_autograd(fw_compiler=_boxed(keep), bw_compiler=_boxed(keep), partition_fn=_as_inductor_does)
    compiled = torch.compile(function, fullgraph=True, backend=backend)
    index = torch.tensor([0, 1, 2, 3, 4, 0])
    for special in (False, True):
        results = []
        for f in (compiled, function):
            x, prior = (t.requires_grad_() for t in logits(special, dtype))
            made = f(x, prior, index)
            total = sum((y.float() * torch.linspace(0.5, 1, y.numel()).view(y.shape)).nansum() for y in made.values())
            finite = {k: y for k, y in made.items() if bool(y.isfinite().all())} if special else made
            results.append(
                (made, torch.autograd.grad(torch.as_tensor(total), (x, prior), retain_graph=True), sorted(finite))
            )
        (ours, gradients, names), (eager, exact, same) = results
        assert names == same
        assert ours.keys() == eager.keys()
        for name in ours:
            torch.testing.assert_close(ours[name], eager[name], equal_nan=True, msg=lambda m, name=name: f"{name}: {m}")
        for a, b in zip(gradients, exact, strict=True):
            torch.testing.assert_close(a, b, equal_nan=True)
    count = len(function(*logits(False, dtype), index))
    assert [len(graph) for graph in nodes] == [count] * len(nodes)


def _boxed(keep):
    return lambda graph, inputs: make_boxed_func(keep(graph, inputs))


def test_a_compiled_loss_refuses_what_eager_code_refuses():
    torch.compiler.reset()
    x, bad = torch.zeros(4), torch.tensor([0.0, 1.0, 1.5, 0.0])
    compiled = torch.compile(losses.bernoulli_nll, fullgraph=True, backend="aot_eager")
    assert compiled(x, bad.clamp_max(1)).item() == pytest.approx(math.log(2))
    with pytest.raises(RuntimeError, match="target must be from 0 to 1"):
        compiled(x, bad)


def test_an_exported_loss_has_none_of_our_operators():
    class Loss(torch.nn.Module):
        def forward(self, x):
            return losses.entropy(x) + losses.keep_ratio(x, 0.3)

    for strict in (True, False):
        program = torch.export.export(Loss(), (torch.randn(3, 4),), strict=strict)
        assert "softdraw" not in str(program.graph)
