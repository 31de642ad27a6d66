"""Several ranks as threads of this process, with torch's own process group of threads: no process is spawned.

``Counted`` counts what a rank sends: it stands between torch.distributed and the group.
"""

import threading
import traceback
from contextlib import contextmanager
from unittest import mock

import torch
import torch.distributed as dist
from torch.testing._internal.distributed.multi_threaded_pg import (
    ProcessLocalGroup,
    _install_threaded_pg,
    _uninstall_threaded_pg,
)


@contextmanager
def threads():
    """torch.distributed with a world for each thread."""
    world = _install_threaded_pg()
    torch._C._distributed_c10d._set_thread_isolation_mode(True)
    try:
        yield world
    finally:
        torch._C._distributed_c10d._set_thread_isolation_mode(False)
        _uninstall_threaded_pg()


def on_ranks(world, work):
    """``work(rank, world)`` on every rank at once; the results in the order of the ranks."""
    results, failures = [None] * world, []
    store = dist.HashStore()

    def start(rank):
        dist.init_process_group("threaded", rank=rank, world_size=world, store=store)
        try:
            results[rank] = work(rank, world)
        except BaseException as failure:
            failures.append(f"rank {rank}: {traceback.format_exc()}")
            ProcessLocalGroup.exception_handle(failure)
        finally:
            dist.destroy_process_group()

    with threads():
        ranks = [threading.Thread(target=start, args=(rank,)) for rank in range(world)]
        for rank in ranks:
            rank.start()
        for rank in ranks:
            rank.join(60)
        ProcessLocalGroup.reset()
    assert not failures, "\n".join(failures)
    return results


class Counted:
    """The calls of this rank's thread to torch.distributed, as (name, bytes that it sends)."""

    def __init__(self):
        self._own = threading.local()

    @property
    def calls(self):
        return self._own.__dict__.setdefault("calls", [])

    def __call__(self, name, real):
        def call(out, *rest, **named):
            sent = rest[0] if name == "all_gather" else out
            self.calls.append((name, sent.numel() * sent.element_size()))
            return real(out, *rest, **named)

        return call

    def __enter__(self):
        names = (
            [n for n in dist.__all__ if n.startswith(("all_", "reduce", "broadcast", "gather", "scatter", "send"))]
            if hasattr(dist, "__all__")
            else ["all_gather", "all_reduce", "broadcast"]
        )
        self._patches = [
            mock.patch.object(dist, name, self(name, getattr(dist, name)))
            for name in names
            if name != "all_gather_object"
        ]
        for patch in self._patches:
            patch.start()
        return self

    def __exit__(self, *_):
        for patch in self._patches:
            patch.stop()
