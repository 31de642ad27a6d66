"""Fixtures that more than one test file uses."""

import itertools
import socket

import pytest
from torch.distributions import Distribution

_numbers = itertools.count()


@pytest.fixture(autouse=True)
def _doctor_cache(tmp_path_factory, monkeypatch):
    """Every test begins with no results of the doctor; the folder is made by the first result."""
    monkeypatch.setenv("SOFTDRAW_DOCTOR_CACHE", str(tmp_path_factory.getbasetemp() / f"doctor-{next(_numbers)}"))


@pytest.fixture(autouse=True)
def _validated():
    """Laws check values in every test, whatever ran before it: torch.compile turns this setting of torch off."""
    Distribution.set_default_validate_args(True)


@pytest.fixture
def free_port() -> int:
    """A TCP port on the loopback interface that nothing listens on."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@pytest.fixture
def ranks_results():
    """Starts processes and returns what each put in the queue; one that does not end after that is ended."""

    def collect(workers, queue) -> list:
        for worker in workers:
            worker.start()
        results = [queue.get(timeout=120) for _ in workers]
        for worker in workers:
            worker.join(20)
            worker.kill()
        return results

    return collect


@pytest.fixture(params=["fastest", "reference"])
def each_body(request, monkeypatch):
    """The fastest body, and plain torch."""
    from softdraw import kernels
    from softdraw.kernels import reference

    if request.param == "reference":
        monkeypatch.setattr(kernels, "body", lambda *_: reference)
        monkeypatch.setattr(kernels, "body_for", lambda *_: reference)
