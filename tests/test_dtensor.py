"""DTensor logits: the draw of a tensor whose rows are sharded is that of the full tensor on one process."""

import re
import traceback

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from dtensor_cases import FAMILIES
from leaves import make
from processes import run
from ranks import on_ranks

import softdraw


def layouts(world):
    """{name: (mesh, placements, families)}: the rows over all ranks, whole copies, and both in two dimensions."""
    from torch.distributed.tensor import Replicate, Shard, init_device_mesh

    line, draws = init_device_mesh("cpu", (world,)), ["draws"]
    if world < 4:
        copies = {"replicated": (line, [Replicate()], draws)} if world == 2 else {}
        return {"sharded": (line, [Shard(0)], list(FAMILIES))} | copies
    square = init_device_mesh("cpu", (2, 2))
    return {
        "both": (square, [Shard(0), Shard(0)], draws),
        "first": (square, [Shard(0), Replicate()], ["laws"]),
        "second": (square, [Replicate(), Shard(0)], draws),
    }


def on_rank(rank, world, store, queue, work):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world)
    try:
        queue.put((rank, work(rank, world)))
        dist.barrier()
    except Exception:
        queue.put((rank, traceback.format_exc()))
        raise
    finally:
        dist.destroy_process_group()


def every_case(rank, world):
    from torch.distributed.tensor import distribute_tensor

    found = {}
    for layout, (mesh, placements, families) in layouts(world).items():

        def place(x, mesh=mesh, placements=placements):
            return distribute_tensor(x, mesh, placements)

        for family in families:
            for name, values in FAMILIES[family](place):
                placed = [str(v.placements == tuple(placements)) for v in values[:2] if hasattr(v, "placements")]
                whole = [v.full_tensor() if hasattr(v, "full_tensor") else v for v in values]
                found[layout, family, name] = placed, [v.float().numpy() for v in whole]
    return found


def several(work, world, folder, ranks_results):
    context = mp.get_context("spawn")
    queue = context.Queue()
    store = str(folder / "store")
    ranks = [context.Process(daemon=True, target=on_rank, args=(r, world, store, queue, work)) for r in range(world)]
    results = ranks_results(ranks, queue)
    for _, result in results:
        assert not isinstance(result, str), result
    return results


@pytest.fixture(scope="module")
def alone():
    return {
        (family, name): [v.float() for v in values]
        for family, cases in FAMILIES.items()
        for name, values in cases(lambda x: x.clone())
    }


@pytest.mark.parametrize("world", [3, *(pytest.param(n, marks=pytest.mark.long) for n in (1, 2, 4))])
def test_every_rank_has_its_part_of_one_draw(world, alone):
    for found in on_ranks(world, every_case):
        assert found
        for (layout, *case), (placed, values) in found.items():
            for got, want in zip(values, alone[tuple(case)], strict=True):
                torch.testing.assert_close(
                    torch.from_numpy(got), want, equal_nan=True, msg=lambda text, at=(layout, *case): f"{at}: {text}"
                )
            if case[0] == "draws" and not case[1].startswith("samples"):  # a sample dimension moves the placements
                assert set(placed) == {"True"}, (layout, *case)


def ranks_that_disagree(rank, world):
    """Each has a seed of its own; the draw follows that of the first."""
    from torch.distributed.tensor import Replicate, Shard, distribute_tensor, init_device_mesh

    found = []
    for placement in (Replicate(), Shard(0), Shard(1)):
        x = distribute_tensor(make((6, 5)), init_device_mesh("cpu", (world,)), [placement])
        torch.manual_seed(rank)
        soft, index = softdraw.gumbel_softmax(x), softdraw.gumbel_max(x)
        found.append((soft.full_tensor().numpy(), index.full_tensor().numpy()))
    return found


def test_ranks_draw_alike_without_a_seed(tmp_path, ranks_results):
    torch.manual_seed(0)
    soft, index = softdraw.gumbel_softmax(make((6, 5))), softdraw.gumbel_max(make((6, 5)))
    for _, found in several(ranks_that_disagree, 2, tmp_path, ranks_results):
        assert len(found) == 3
        for got_soft, got_index in found:
            torch.testing.assert_close(torch.from_numpy(got_soft), soft)
            assert torch.equal(torch.from_numpy(got_index), index)


def refusals(rank, world):
    """What is said to logits and arguments that cannot be drawn from."""
    from torch.distributed.tensor import DTensor, Partial, Shard, distribute_tensor, init_device_mesh

    mesh, plain = init_device_mesh("cpu", (world,)), make((6, 5))
    rows, split = distribute_tensor(plain, mesh, [Shard(0)]), distribute_tensor(plain, mesh, [Shard(1)])
    attempts = {
        "split": lambda: softdraw.gumbel_topk(split, 2),
        "split truncated": lambda: softdraw.draw_index(split, top_k=2),
        "split law": lambda: softdraw.OneHotCategorical(split).rsample((2,), seed=1),
        "split rule": lambda: softdraw.draw(split, softdraw.GumbelRao(0.5, samples=3), seed=1),
        "split value": lambda: softdraw.draw(split, value=(split == split.amax()).float(), seed=1),
        "split columns": lambda: softdraw.gumbel_max(split, col_start=8),
        "unsummed rows": lambda: softdraw.distributed.dtensor.split(DTensor.from_local(plain, mesh, [Partial()])),
        "unsummed": lambda: softdraw.gumbel_softmax(DTensor.from_local(plain, mesh, [Partial()]), hard=True),
        "mask": lambda: softdraw.gumbel_softmax(plain, mask=rows > 0),
        "tau": lambda: softdraw.gumbel_softmax(plain, rows[:, :1].exp()),
        "rows": lambda: softdraw.gumbel_max(plain, rows=rows[:, 0].long()),
        "index": lambda: softdraw.noise_at(rows[:, 0].long(), seed=1),
        "weights": lambda: softdraw.multinomial(rows.exp(), 2),
        "ids": lambda: softdraw.fold_in(1, rows[:, 0].long()),
        "k": lambda: softdraw.gumbel_topk(rows, torch.tensor([1, 2, 3, 1, 2, 3])),
        "top_k": lambda: softdraw.draw_index(rows, top_k=torch.tensor([1, 2, 0, 1, 2, 3])),
        "loss": lambda: softdraw.losses.categorical_nll(rows, plain[:4, 0].long()),
    }
    orders, y = softdraw.PlackettLuce(rows, 3), torch.tensor([[0, 1, 2]] * 6)
    attempts |= {
        "subset": lambda: softdraw.Subset(rows, 2),
        "orders' density": lambda: orders.log_prob(orders.sample(seed=1)),
        "orders' density of plain ones": lambda: orders.log_prob(y),
        "orders' entropy": orders.entropy,
        "orders' marginals": orders.marginals,
        "orders' divergence": lambda: torch.distributions.kl_divergence(orders, orders.tempered(2.0)),
        "orders' scores": lambda: orders.scores_given(orders.mode, seed=1),
        "orders' states": orders.enumerate_support,
    }
    for rule in (softdraw.LeaveOneOut(2), softdraw.Rebar(), softdraw.Exact(), softdraw.SumAndSample()):
        attempts[f"orders' {rule}"] = lambda r=rule: softdraw.expect(
            lambda z: orders.matrix(z).flatten(2).sum(-1), orders, r, seed=1
        )
    state, said = torch.get_rng_state(), {}
    for name, attempt in attempts.items():
        try:
            said[name] = f"returned {attempt()}"
        except (ValueError, TypeError) as error:
            said[name] = f"{type(error).__name__}: {error}"
    return said, torch.equal(state, torch.get_rng_state())


def test_what_is_refused(tmp_path, ranks_results):
    ((_, (said, untouched)),) = several(refusals, 1, tmp_path, ranks_results)
    assert "split over its categories, and a draw needs whole rows: redistribute it first" in said["split"]
    assert said["split truncated"].startswith(
        "ValueError: top_k, top_p and min_p must be None where logits is a DTensor split"
    )
    assert said["split law"].startswith("ValueError: sample_shape must be left out where logits is a DTensor split")
    assert said["split value"].startswith("ValueError: value must be left out where logits is a DTensor split")
    assert said["split rule"].startswith("TypeError: rule must be one of ZGR, StraightThrough, ")
    assert said["split columns"].startswith("ValueError: col_start must be 0 where logits is a DTensor split")
    for name in ("unsummed", "unsummed rows"):
        assert "not yet summed over ranks: redistribute it first" in said[name]
    for name in ("mask", "tau", "rows"):
        assert said[name].startswith(f"TypeError: {name} is a DTensor and logits a plain tensor")
    assert said["index"].startswith("TypeError: index must be a plain tensor, got a DTensor")
    assert said["weights"].startswith("TypeError: weights must be a plain tensor, got a DTensor")
    assert said["ids"].startswith("TypeError: ids must be plain tensors, got a DTensor")
    assert said["k"].startswith("ValueError: k must be an int where its values cannot be read")
    assert said["top_k"].startswith("ValueError: top_k must be at least 1, got 0 in 1 of 6 rows")
    ours = [name for name in said if name == "subset" or name.startswith("orders'")]
    assert len(ours) == 12
    for name in ours:
        assert re.match(r"TypeError: logits must be a plain tensor for .*, got a DTensor: .*full_tensor", said[name]), (
            name
        )
    assert said["loss"].startswith("ValueError: target must")
    assert untouched  # a refused call draws no seed


def test_nothing_of_dtensors_is_imported_without_one():
    code = """
import sys, torch, softdraw
logits = torch.zeros(2, 3, requires_grad=True)
softdraw.gumbel_softmax(logits, mask=logits > -1).sum().backward()
softdraw.losses.entropy(logits)
print("torch.distributed.tensor" in sys.modules)
"""
    assert run(code).strip() == "False"
