"""Fixtures that more than one test file uses."""

import socket

import pytest


@pytest.fixture
def free_port() -> int:
    """A TCP port on the loopback interface that nothing listens on."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]
