"""DTensor logits: the draw of a tensor whose rows are sharded is that of the full tensor on one process."""

import os
import subprocess
import sys

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from dtensor_cases import FAMILIES, N
from leaves import make

import softdraw

EXACT = ("draws",)


def start(rank, world, store):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world)


def meshes(world):
    """{name: (mesh, placements)}: the rows over all ranks; whole copies; and in two dimensions, both and mixed."""
    from torch.distributed.tensor import Replicate, Shard, init_device_mesh

    line = init_device_mesh("cpu", (world,))
    found = {"sharded": (line, [Shard(0)]), "replicated": (line, [Replicate()])}
    if world == 4:
        square = init_device_mesh("cpu", (2, 2))
        found = {"both": (square, [Shard(0), Shard(0)]), "first": (square, [Shard(0), Replicate()])}
        found["second"] = square, [Replicate(), Shard(0)]
    return found


def worker(rank, world, store, queue):
    from torch.distributed.tensor import distribute_tensor

    start(rank, world, store)
    found, wrong = {}, []
    for layout, (mesh, placements) in meshes(world).items():
        def place(x, mesh=mesh, placements=placements):
            return distribute_tensor(x, mesh, placements)

        for family, cases in FAMILIES.items():
            try:
                for name, values in cases(place):
                    whole = [v.full_tensor() if hasattr(v, "full_tensor") else v for v in values]
                    found[layout, family, name] = [v.float().numpy() for v in whole]
                    kept = [tuple(v.placements) for v in values[:2] if hasattr(v, "placements")]
                    if family == "draws" and name not in ("samples",) and kept != [tuple(placements)] * len(kept):
                        wrong.append((layout, family, name, kept))
            except Exception as error:
                import traceback

                wrong.append((layout, family, "after " + str(next(reversed(found), "")), traceback.format_exc()))
    queue.put((rank, found, wrong))
    dist.barrier()
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def alone():
    return {
        (family, name): [v.float() for v in values]
        for family, cases in FAMILIES.items()
        for name, values in cases(lambda x: x.clone())
    }


@pytest.mark.parametrize("world", [1, 2, 3, 4])
def test_every_rank_has_its_part_of_one_draw(world, alone, tmp_path, ranks_results):
    context = mp.get_context("spawn")
    queue = context.Queue()
    arguments = [(rank, world, str(tmp_path / "store"), queue) for rank in range(world)]
    workers = [context.Process(daemon=True, target=worker, args=a) for a in arguments]
    results = ranks_results(workers, queue)
    layouts = 3 if world == 4 else 2
    for _, found, wrong in results:
        assert wrong == [], "\n".join(map(str, wrong[0]))
        assert len(found) == layouts * len(alone)
        for (layout, *case), values in found.items():
            for got, want in zip(values, alone[tuple(case)], strict=True):
                torch.testing.assert_close(
                    torch.from_numpy(got), want, equal_nan=True, msg=lambda text, at=(layout, *case): f"{at}: {text}"
                )
