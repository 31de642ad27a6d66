"""The names that every doctest may use."""

import pytest
import torch

import softdraw


@pytest.fixture(autouse=True)
def _doctest_names(doctest_namespace: dict) -> None:
    doctest_namespace.update(torch=torch, softdraw=softdraw)
