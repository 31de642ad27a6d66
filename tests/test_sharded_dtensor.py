"""DTensor logits that are split over their categories: draws, losses and gradients are those of the full tensor."""

import pytest
import torch
import torch.distributed as dist
from dtensor_cases import backward
from leaves import make
from ranks import on_ranks
from sharded_cases import RULES
from test_dtensor import several

import softdraw
from softdraw import losses


def dtensor_cases(place):
    """{name: [values]} of logits, which ``place`` splits over their categories."""
    x, w, mask = place(make((7, 5))).requires_grad_(), place(make((7, 5), seed=1)), make((7, 5), seed=2) > -0.7
    ids, taus = torch.arange(7) * 5 + 2**40, make((7, 1), seed=3).exp()
    for hard in (False, True):
        yield f"plain {hard}", backward(softdraw.gumbel_softmax(x, 0.7, hard, seed=4), w, x)
        y = softdraw.gumbel_softmax(x, 0.7, hard, seed=softdraw.fold_in(4, ids), mask=place(mask), rows=2)
        yield f"mask {hard}", backward(y, w, x)
        for name, t in {"one tau": torch.tensor(0.4), "a tau a row": taus}.items():
            leaf = t.clone().requires_grad_()
            yield f"{name} {hard}", backward(softdraw.gumbel_softmax(x, leaf, hard, seed=4, rows=ids), w, x, leaf)
        yield f"noiseless {hard}", backward(softdraw.gumbel_softmax(x, 0.7, hard, noise=False, mask=mask), w, x)
    yield "index", [softdraw.gumbel_max(x, seed=4, mask=mask, sample_shape=(2, 3)), softdraw.gumbel_max(x, seed=4)]
    yield "dim", [softdraw.gumbel_max(x.T, dim=0, seed=4), softdraw.gumbel_softmax(x.T, dim=0, seed=4)]
    said = softdraw.draw_index(x, seed=4, rows=ids, temperature=taus)
    yield "index draw", [said.index, *backward((said.log_prob + said.entropy).sum(), 1, x)]
    for rule in (*RULES, softdraw.StraightThrough(taus)):
        yield f"{rule}", backward(softdraw.draw(x, rule, seed=4), w, x)
    law = softdraw.OneHotCategorical(x, mask)
    yield "law", backward(law.rsample(rule=softdraw.ReinMax(1.1), seed=4, rows=ids), w, x)
    yield "samples", [law.sample((2,), seed=4), law.sample(seed=4)]
    yield "entropy", backward(law.entropy().sum(), 1, x)
    one_hots = place(torch.nn.functional.one_hot(torch.arange(7) % 5, 5).float())
    yield "log_prob", backward(softdraw.OneHotCategorical(x).log_prob(one_hots).sum(), 1, x)
    keep, weight, prior = make((7,), seed=2) > -0.7, make((7,), seed=3).exp(), make((5,), seed=4).requires_grad_()
    yield "nll", backward(losses.categorical_nll(x, torch.arange(7) % 5, mask=keep, weight=weight), 1, x)
    yield "nll of laws", backward(losses.categorical_nll(x, one_hots, weight=weight), 1, x)
    yield "mean entropy", backward(losses.entropy(x, mask=keep), 1, x)
    yield "uniform", backward(losses.kl_to_uniform(x, weight=weight), 1, x)
    yield "prior", backward(losses.kl_to_prior(x, prior), 1, x, prior)


def placements_of(world):
    """{layout: (mesh, placements)}: categories over all ranks; of four also in two dimensions, with rows or copies."""
    from torch.distributed.tensor import Replicate, Shard, init_device_mesh

    if world == 4:
        mesh = init_device_mesh("cpu", (2, 2))
        return {"rows too": (mesh, (Shard(0), Shard(1))), "copies": (mesh, (Shard(1), Replicate()))}
    return {"categories": (init_device_mesh("cpu", (world,)), (Shard(1),))}


@pytest.fixture(scope="module")
def undistributed():
    return dict(dtensor_cases(lambda x: x.clone()))


@pytest.mark.parametrize("world", [3, 4, pytest.param(2, marks=pytest.mark.long)])
def test_dtensors_split_over_their_categories(world, undistributed):
    def work(rank, world):
        from torch.distributed.tensor import distribute_tensor

        found = {}
        for layout, (mesh, placements) in placements_of(world).items():
            for name, values in dtensor_cases(lambda x, m=mesh, p=placements: distribute_tensor(x, m, p)):
                placed = [v.placements for v in values if hasattr(v, "placements")]
                whole = [v.full_tensor() if hasattr(v, "full_tensor") else v for v in values]
                found[layout, name] = placed, placements, whole
        return found

    for found in on_ranks(world, work):
        for (layout, name), (placed, placements, values) in found.items():
            for got, want in zip(values, undistributed[name], strict=True):
                torch.testing.assert_close(got, want, msg=lambda text, at=(layout, name): f"{at}: {text}")
            if name.startswith(("plain", "ZGR", "law")):
                assert all(p == placements for p in placed)  # of the draw and of the gradient
            elif name == "index":
                rows = [p.is_shard(0) for p in placements]
                assert [p.is_shard(0) for p in placed[1]] == rows
                assert [p.is_replicate() for p in placed[1]] == [not r for r in rows]


def test_tensor_parallel_layers_under_fsdp():
    """On a mesh of 2 x 2: a layer split over its outputs, its parameters sharded over the other dimension, and a draw
    from what comes out; the same draw and gradient as the layer on one rank has."""
    x, w = make((6, 4), seed=2), make((6, 9), seed=5)

    def layer():
        made = torch.nn.Linear(4, 9)
        with torch.no_grad():
            made.weight.copy_(make((9, 4)))
            made.bias.copy_(make((9,), seed=1))
        return made

    def work(rank, world):
        from torch.distributed.fsdp import fully_shard
        from torch.distributed.tensor import Shard, distribute_tensor, init_device_mesh
        from torch.distributed.tensor.parallel import ColwiseParallel, parallelize_module

        mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("rows", "categories"))
        split = ColwiseParallel(output_layouts=Shard(-1), use_local_output=False)
        model = fully_shard(parallelize_module(layer(), mesh["categories"], split), mesh=mesh["rows"])
        first = 3 * mesh.get_local_rank("rows")
        half = slice(first, first + 3)
        y = softdraw.draw(model(x[half]), softdraw.ZGR(), seed=3, rows=first)
        (y * distribute_tensor(w[half], mesh["categories"], [Shard(1)])).sum().full_tensor().backward()
        return y.full_tensor().detach(), model.weight.grad.full_tensor() * 2  # FSDP takes the mean over its ranks

    alone = layer()
    y = softdraw.draw(alone(x), softdraw.ZGR(), seed=3)
    (y * w).sum().backward()
    found = on_ranks(4, work)
    assert torch.equal(torch.cat([found[0][0], found[2][0]]), y)
    for _, gradient in found:
        torch.testing.assert_close(gradient, alone.weight.grad)


def compiled(rank, world):
    """Draws from rows split over their categories, as blocks and as DTensors, in one compiled graph: what eager code
    gives, and that."""
    from torch.distributed.tensor import DTensor, Shard, init_device_mesh

    mesh, group, first = init_device_mesh("cpu", (world,)), dist.group.WORLD, 4 * rank
    part = slice(first, first + 4 if rank < world - 1 else 8)
    w = make((3, 8), seed=1)[:, part]

    def step(x, seed):
        index = softdraw.distributed.gumbel_max(x, first, group, seed=seed)
        y = softdraw.distributed.draw(x, first, group, softdraw.ReinMax(1.2), seed=seed)
        said = softdraw.distributed.draw_index(x, first, group, seed=seed, temperature=0.5)
        logits = DTensor.from_local(x, mesh, [Shard(1)], run_check=False)
        soft, hard = softdraw.gumbel_softmax(logits, 0.7, seed=seed), softdraw.draw(logits, seed=seed)
        total = ((y + soft.to_local() + hard.to_local()) * w).sum() + (said.log_prob + said.entropy).sum()
        return softdraw.gumbel_max(logits, seed=seed).to_local(), index, said.index, total

    both = []
    for call in (step, torch.compile(step, backend="aot_eager", fullgraph=True)):
        x = make((3, 8))[:, part].clone().requires_grad_()
        *indices, total = call(x, 3)
        total.backward()
        both.append([t.detach().numpy() for t in (*indices, total, x.grad)])
    return both


def check_compiled(eager, graph):
    for one, other in zip(eager, graph, strict=True):
        torch.testing.assert_close(torch.from_numpy(one), torch.from_numpy(other))
    assert torch.equal(torch.from_numpy(graph[0]), softdraw.gumbel_max(make((3, 8)), seed=3))
    assert (graph[1] == graph[0]).all()


def test_one_graph_holds_the_collectives():
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        check_compiled(*compiled(0, 1))
    finally:
        dist.destroy_process_group()


@pytest.mark.long
def test_ranks_run_their_graphs_together(tmp_path, ranks_results):
    for _, both in several(compiled, 2, tmp_path, ranks_results):
        check_compiled(*both)
