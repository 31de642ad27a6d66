"""Several ranks as threads of this process, over torch's own process group of threads: nothing is spawned.

``sent`` says what went through the group. Threads share the default generator, so seeds are given here;
tests/test_dtensor.py has processes for those that are drawn.
"""

import threading
import traceback
from contextlib import contextmanager
from unittest import mock

import torch
import torch.distributed as dist
from torch.testing._internal.distributed import multi_threaded_pg as threaded

# Collectives of (output, input), and those in place.
_BETWEEN = {"allgather", "all_gather_single", "all_gather_single_coalesced", "alltoall", "all_to_all_single", "gather"}
_BETWEEN |= {"scatter", "reduce_scatter", "reduce_scatter_single", "reduce_scatter_single_coalesced"}
_WITHIN = {"allreduce", "allreduce_coalesced", "broadcast", "barrier"}
_own = threading.local()


@contextmanager
def threads():
    """torch.distributed with a world for each thread."""
    threaded._install_threaded_pg()
    torch._C._distributed_c10d._set_thread_isolation_mode(True)
    try:
        with mock.patch.multiple(threaded.ProcessLocalGroup, **_counted()):
            yield
    finally:
        torch._C._distributed_c10d._set_thread_isolation_mode(False)
        threaded._uninstall_threaded_pg()


def on_ranks(world, work):
    """``work(rank, world)`` on every rank at once; the results in the order of the ranks."""
    results, failures, store = [None] * world, [], dist.HashStore()

    def start(rank):
        dist.init_process_group("threaded", rank=rank, world_size=world, store=store)
        try:
            results[rank] = work(rank, world)
        except BaseException as failure:
            failures.append(f"rank {rank}: {traceback.format_exc()}")
            threaded.ProcessLocalGroup.exception_handle(failure)
        finally:
            dist.destroy_process_group()

    with threads():
        ranks = [threading.Thread(target=start, args=(rank,), daemon=True) for rank in range(world)]
        for rank in ranks:
            rank.start()
        for rank in ranks:
            rank.join(60)
        threaded.ProcessLocalGroup.reset()
    assert not failures, "\n".join(failures)
    return results


def sent():
    """What this rank has sent since the last call, as (collective, bytes)."""
    found = _own.__dict__.setdefault("sent", [])
    _own.sent = []
    return found


def _counted():
    """The methods of the process group, wrapped."""
    kind = threaded.ProcessLocalGroup
    return {name: _wrapped(name, getattr(kind, name)) for name in _BETWEEN | _WITHIN if hasattr(kind, name)}


def _wrapped(name, real):
    def call(group, *arguments, **named):
        what = arguments[1] if name in _BETWEEN else arguments[:1]
        _own.__dict__.setdefault("sent", []).append((name, _bytes(what)))
        return real(group, *arguments, **named)

    return call


def _bytes(x):
    if isinstance(x, torch.Tensor):
        return x.numel() * x.element_size()
    return sum(map(_bytes, x)) if isinstance(x, (list, tuple)) else 0
