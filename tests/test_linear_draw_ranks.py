"""A linear layer and a draw in one whose categories are split over ranks: equal to the whole, and what is sent."""

import pytest
import torch
from linear_cases import RULES, D, K, N, V, operands
from ranks import on_ranks, sent
from sharded_cases import cuts

import softdraw
from softdraw import distributed

EMPTY, BROKEN = 3, 5  # rows: nothing allowed, and a NaN among the logits


def keys_of(mask):
    return {"seed": 3, "rows": torch.arange(12).view(N) * 7 + 2**33, "mask": mask}


def masked():
    mask = torch.rand(12, K, generator=torch.Generator().manual_seed(1)) < 0.7
    mask[EMPTY] = False
    return mask.view(*N, K)


def given(dtype):
    """x has a row that is NaN."""
    x, *layer = operands(dtype)
    x.view(12, D)[BROKEN, 0] = torch.nan
    return [x, *layer]


def loss(value, log_prob):
    """Of the sound rows."""
    sound = torch.ones(12, dtype=torch.bool)
    sound[[EMPTY, BROKEN]] = False
    lp = log_prob.flatten()[sound]
    return value.flatten(0, -2)[sound].sin().sum() + (lp * torch.arange(len(lp))).sum()


def plain(draw, leaves):
    """Value, index, log-probability and the gradients of ``leaves``."""
    value, index, log_prob = draw
    loss(value, log_prob).backward()
    return [value.detach(), index, log_prob.detach(), *(t.grad for t in leaves)]


@pytest.mark.parametrize("world", [1, 3, 4])
def test_blocks_give_what_the_whole_layer_gives(world):
    at, mask = cuts(K, world), masked()

    def work(rank, world):
        a, b = at[rank : rank + 2]
        found = []
        for dtype in (torch.float64, torch.float32):
            for rule in RULES:
                x, *layer = given(dtype)
                leaves = [t.clone().requires_grad_() for t in (x, *(t[a:b] for t in layer))]
                draw = distributed.linear_draw(
                    leaves[0], leaves[1], a, None, *leaves[2:], rule=rule, **keys_of(mask[..., a:b])
                )
                found.append(plain(draw, leaves))
        return found

    every, cases = on_ranks(world, work), [(t, r) for t in (torch.float64, torch.float32) for r in RULES]
    for i, (dtype, rule) in enumerate(cases):
        leaves = [t.clone().requires_grad_() for t in given(dtype)]
        wanted = plain(softdraw.linear_draw(*leaves, rule=rule, **keys_of(mask)), leaves)
        within = 1e-12 if dtype == torch.float64 else 2e-5
        assert wanted[0].flatten(0, 1)[BROKEN].isnan().all()
        for found in every:
            assert torch.equal(found[i][1], wanted[1])
            for got, want in zip(found[i][:4], wanted, strict=False):  # and the gradient of x
                torch.testing.assert_close(got, want, rtol=within, atol=within, equal_nan=True)
        for n, want in enumerate(wanted[4:], 4):
            blocks = torch.cat([found[i][n] for found in every])
            torch.testing.assert_close(blocks, want, rtol=within, atol=within, equal_nan=True)


def test_what_is_sent():
    """Forward one all-gather, and one all-reduce of the value; backward one of sums over categories, and one of dx."""

    def work(rank, world):
        found = {}
        for rule in RULES[:4]:
            x, weight, bias, codebook = (t.requires_grad_() for t in operands(torch.float32))
            a, b = cuts(K, world)[rank : rank + 2]
            sent()
            draw = distributed.linear_draw(x, weight[a:b], a, None, bias[a:b], codebook[a:b], rule=rule, seed=1)
            forward = sent()
            (draw.value.sum() + draw.log_prob.sum()).backward()
            found[type(rule).__name__] = forward, sent()
        alone = distributed.linear_draw(x.detach(), weight[a:b], a, seed=1)
        forward = sent()
        alone.log_prob.sum().backward()
        return found, forward, sent()

    of_x, one, three = ("allreduce", 12 * 4 * D), ("allreduce", 12 * 4), ("allgather", 12 * 12)
    for found, forward, backward in on_ranks(2, work):
        for name, passes in found.items():
            sums = one if name == "ZGR" else three
            assert passes == ([("allgather", 12 * 20), ("allreduce", 12 * 4 * V)], [sums, of_x]), name
        assert (forward, backward) == ([("allgather", 12 * 20)], [one])


@pytest.mark.parametrize("world", [2, 4])
def test_parameters_that_are_dtensors_split_over_their_categories(world):
    """In a mesh of 2 x 2 the rows of x are split over the other dimension, and its plain part is given as it is."""
    rule, at = RULES[3], torch.arange(12) * 7
    leaves = [t.requires_grad_() for t in operands()]
    mask = masked() | (torch.arange(K) < 2)
    draw = softdraw.linear_draw(
        leaves[0].flatten(0, 1), *leaves[1:], rule=rule, seed=3, rows=at, mask=mask.flatten(0, 1)
    )
    (draw.value.sin().sum() + draw.log_prob.sum()).backward()

    def work(rank, world):
        from torch.distributed.tensor import Replicate, Shard, distribute_tensor, init_device_mesh

        mesh = init_device_mesh("cpu", (world // 2, 2))
        x, *layer = operands()
        layer = [distribute_tensor(t, mesh, [Replicate(), Shard(0)]).requires_grad_() for t in layer]
        found = []
        for place in (lambda t: t, lambda t: distribute_tensor(t, mesh, [Shard(0), Replicate()])):
            mine = place(x.flatten(0, 1)).requires_grad_()
            y = softdraw.linear_draw(mine, *layer, rule=rule, seed=3, rows=at, mask=mask.flatten(0, 1))
            placed = [getattr(t, "placements", None) for t in y]
            total = y.value.sin().sum() + y.log_prob.sum()
            total.backward()
            found.append((placed, [whole(t) for t in (*y, mine.grad, *(t.grad for t in layer))]))
            for t in layer:
                t.grad = None
        return found, softdraw.linear_draw(x, *layer).index

    def whole(t):
        return (t.full_tensor() if hasattr(t, "full_tensor") else t).detach()

    every = on_ranks(world, work)
    for found, _ in every:
        for _, values in found:
            for got, want in zip(values, (*draw, *(t.grad for t in leaves)), strict=True):
                torch.testing.assert_close(got.view(want.shape), want.detach(), rtol=1e-12, atol=1e-12)
        assert found[0][0] == [None] * 3
        assert all(p[0].is_shard(0) and p[1].is_replicate() for p in found[1][0])
    assert all(torch.equal(index, every[0][1]) for _, index in every)  # of a seed that was drawn


class Head(torch.nn.Module):
    """A layer, its draw and its codebook; the rows of the batch are given with their ids."""

    def __init__(self, *layer):
        super().__init__()
        self.weight, self.bias, self.codebook = (torch.nn.Parameter(t) for t in layer)

    def forward(self, x, rows):
        return softdraw.linear_draw(x, self.weight, self.bias, self.codebook, seed=3, rows=rows)


def test_a_layer_split_over_its_categories_under_fsdp():
    """On a mesh of 2 x 2: parameters split over their categories, and by FSDP2 over the other dimension."""
    x, *layer = operands()
    x = x.flatten(0, 1)

    def work(rank, world):
        from torch.distributed.fsdp import fully_shard
        from torch.distributed.tensor import Shard, distribute_tensor, init_device_mesh

        mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("rows", "categories"))
        model = Head(*(distribute_tensor(t, mesh["categories"], [Shard(0)]) for t in operands()[1:]))
        first = 6 * mesh.get_local_rank("rows")
        value, index, log_prob = fully_shard(model, mesh=mesh["rows"])(x[first : first + 6], first)
        (value.sin().sum() + log_prob.sum()).backward()
        return index, [p.grad.full_tensor() * 2 for p in model.parameters()]  # FSDP takes the mean over its ranks

    alone = Head(*layer)
    value, index, log_prob = alone(x, 0)
    (value.sin().sum() + log_prob.sum()).backward()
    found = on_ranks(4, work)
    assert torch.equal(torch.cat([found[0][0], found[2][0]]), index)
    for _, gradients in found:
        torch.testing.assert_close(gradients, [p.grad for p in alone.parameters()], rtol=1e-12, atol=1e-12)


X, W = torch.zeros(3, 4), torch.zeros(7, 4)
REFUSED = {  # what is given, and what the error says
    "rule": (lambda d: d.linear_draw(X, W, 0, rule=softdraw.ReinMax(), seed=0), TypeError, ["rule", "reinmax", "ZGR"]),
    "samples": (lambda d: d.linear_draw(X, W, 0, rule=softdraw.GumbelRao(0.5, 3), seed=0), TypeError, ["rule", "ZGR"]),
    "shape": (lambda d: d.linear_draw(X, W[:, :3], 0, seed=0), ValueError, ["weight", "(K, 4)", "(7, 3)"]),
    "seed": (lambda d: d.linear_draw(X, W, 0, seed=None), TypeError, ["seed must be given", "None"]),
    "column": (lambda d: d.linear_draw(X, W, 2**32 - 3, seed=0), ValueError, ["col_start", "7 columns"]),
    "mask": (lambda d: d.linear_draw(X, W, 0, seed=0, mask=X > 0), ValueError, ["mask", "(3, 4)", "(3, 7)"]),
}


def test_what_is_refused():
    def work(rank, world):
        from torch.distributed.tensor import Replicate, Shard, distribute_tensor, init_device_mesh

        mesh = init_device_mesh("cpu", (1,))
        x, rows = (distribute_tensor(t, mesh, [Replicate()]) for t in (X, W))
        split, book = distribute_tensor(W, mesh, [Shard(0)]), distribute_tensor(W, mesh, [Shard(1)])
        part = x.redistribute(mesh, [Shard(0)])
        calls = {name: lambda call=call: call(distributed) for name, (call, *_) in REFUSED.items()}
        calls |= {
            name: lambda call=call: softdraw.linear_draw(*call, seed=0)
            for name, call in {
                "x alone": (x, W),
                "bias": (X, split, W[:, 0]),
                "replicated": (X, rows),
                "features": (X, book),
                "codebook": (X, split, None, book),
                "rows over categories": (part, split),
            }.items()
        }
        calls["block"] = lambda: distributed.linear_draw(X, split, 0, seed=0)
        calls["first"] = lambda: softdraw.linear_draw(X, split, seed=0, col_start=3)
        calls["compiled"] = lambda: torch.compile(
            lambda x: distributed.linear_draw(x, W, 0, seed=0).index, backend="eager", fullgraph=True
        )(X)
        return {name: said(call) for name, call in calls.items()}

    words = {name: (kind, some) for name, (_, kind, some) in REFUSED.items()} | {
        "x alone": (TypeError, ["x", "DTensor", "x.full_tensor()", "weight"]),
        "bias": (TypeError, ["bias", "plain tensor", "distribute"]),
        "replicated": (ValueError, ["weight", "Replicate", "Shard(0)"]),
        "features": (ValueError, ["weight", "dim=1", "Shard(0)"]),
        "codebook": (ValueError, ["codebook", "dim=1", "redistribute"]),
        "rows over categories": (ValueError, ["x", "dim=0", "Replicate()"]),
        "block": (TypeError, ["weight", "DTensor", ".to_local()"]),
        "first": (ValueError, ["col_start", "3"]),
        "compiled": (Exception, ["do not compile"]),
    }
    (errors,) = on_ranks(1, work)
    for name, (kind, some) in words.items():
        assert isinstance(errors[name], kind), (name, errors[name])
        assert [word for word in some if word not in str(errors[name])] == [], (name, errors[name])


def said(call):
    try:
        return call()
    except Exception as error:
        return error
