"""The state of a process in which no kernel body was picked yet."""

import pytest

from softdraw import kernels


@pytest.fixture
def unasked(monkeypatch):
    """Whatever asks for a body finds that nothing is known yet."""
    for name, empty in (("_picked", {}), ("_on_cpu", {}), ("_agreed", set()), ("_refused", {})):
        monkeypatch.setattr(kernels, name, empty)
