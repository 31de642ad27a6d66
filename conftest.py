"""The names that every doctest may use, and what is left out where Triton is missing or too old."""

import gc
import os
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

import pytest
import torch

import softdraw
from softdraw import kernels

# Imports and collected tests stay until the end: collections of garbage among them take a fifth of that time.
gc.disable()
# Tests start hundreds of processes. Where this is set, as in many container images, each compiles every module anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# Processes that join in a group here find each other on this machine, whatever its name resolves to.
if sys.platform == "linux":
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")

# Each body is compared with plain torch before its first use: here, where no test has replaced a function of torch.
for _dtype in (torch.float32, torch.float64, torch.bfloat16, torch.float16):
    kernels.body(torch.device("cpu"), _dtype)


def _triton_is_there() -> bool:
    """Whether the Triton kernels can be imported: by its version, since importing Triton settles how it runs."""
    try:
        return tuple(map(int, version("triton").split(".")[:2])) >= (3, 3)
    except PackageNotFoundError:
        return False


# Modules that import Triton: collecting them would be an error.
_NEED_TRITON = ["softdraw/kernels/triton/*.py", "tests/triton_aot.py", "tests/test_triton_compile.py"]
collect_ignore_glob = [] if _triton_is_there() else [*_NEED_TRITON]
if find_spec("pygls") is None:
    collect_ignore_glob.append("doctor/softdraw_doctor/lsp.py")


def pytest_terminal_summary(terminalreporter) -> None:
    if collect_ignore_glob:
        left_out = ", ".join(collect_ignore_glob)
        terminalreporter.write_line(f"left out, since Triton 3.3 or newer, or pygls, is not installed: {left_out}")


def pytest_collection_finish() -> None:
    gc.freeze()  # later collections do not walk over what stays
    gc.enable()


@pytest.fixture(autouse=True)
def _doctest_names(doctest_namespace: dict) -> None:
    doctest_namespace.update(torch=torch, softdraw=softdraw)


@pytest.fixture(autouse=True)
def _one_rank(request: pytest.FixtureRequest) -> Iterator[None]:
    """Examples of softdraw.distributed run on a group of one rank."""
    if not request.node.name.startswith("softdraw.distributed."):
        yield
        return
    world = torch.distributed
    world.init_process_group("gloo", store=world.HashStore(), rank=0, world_size=1)  # pyright: ignore
    yield
    world.destroy_process_group()
