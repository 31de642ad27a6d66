"""The test vectors of docs/noise.md: tools/noise_vectors makes them from the contract, and softdraw has the same."""

import importlib.machinery
import importlib.util
import json
from pathlib import Path

import pytest
import torch

import softdraw
from softdraw import kernels, noise
from softdraw.kernels import reference

ROOT = Path(__file__).parent.parent
VECTORS = json.loads((ROOT / "docs" / "noise-vectors.json").read_text())
BODIES = ["fastest", "reference"]


def tool():
    """tools/noise_vectors, which needs neither softdraw nor torch."""
    loader = importlib.machinery.SourceFileLoader("noise_vectors", str(ROOT / "tools" / "noise_vectors"))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(loader.name, loader))
    loader.exec_module(module)
    return module


@pytest.fixture(params=BODIES)
def each_body(request, monkeypatch):
    if request.param == "reference":
        monkeypatch.setattr(kernels, "body", lambda *_: reference)


def equal(found, written):
    """Integers and strings exactly; floats as far as two mathematical libraries agree."""
    if isinstance(written, float):
        return found == pytest.approx(written, rel=1e-13)
    if isinstance(written, dict):
        return found.keys() == written.keys() and all(equal(found[key], written[key]) for key in written)
    if isinstance(written, list):
        return len(found) == len(written) and all(map(equal, found, written))
    return found == written


def test_the_file_is_what_the_tool_makes():
    assert equal(json.loads(tool().text()), VECTORS)


def test_philox():
    for case in VECTORS["philox4x32_10"]:
        words = noise.philox(tuple(map(torch.tensor, case["counter"])), tuple(map(torch.tensor, case["key"])))
        assert [int(word) for word in words] == case["words"]


def test_fold_in():
    for case in VECTORS["fold_in"]:
        assert int(softdraw.fold_in(case["seed"], *case["ids"])) % 2**64 == case["result"]
        in_tensors = softdraw.fold_in(torch.tensor([noise.signed(case["seed"])]), *case["ids"])
        assert int(in_tensors) % 2**64 == case["result"]


@pytest.mark.usefixtures("each_body")
def test_noise():
    for case in VECTORS["noise"]:
        key = {"seed": case["seed"], "rows": torch.tensor([case["row"]]), "stream": case["stream"]}
        column = torch.tensor([case["column"]])
        for dtype, tolerance in ((torch.float64, 1e-13), (torch.float32, 2**-22)):
            made = softdraw.gumbel_noise((1, 1), col_start=case["column"], dtype=dtype, **key)
            looked_up = softdraw.noise_at(column, dtype=dtype, **key)
            for value in (made.item(), looked_up.item()):
                assert value == pytest.approx(case["gumbel"], rel=tolerance, abs=tolerance)
        assert softdraw.uniform_at(column, dtype=torch.float64, **key).item() == case["u"]
        assert softdraw.uniform_at(column, **key).item() == case["u_float32"]
        first = noise.words(
            torch.tensor(noise.signed(case["seed"])), key["rows"], 1, case["column"], torch.tensor(case["stream"])
        )
        assert first.item() == case["x"]


@pytest.mark.usefixtures("each_body")
def test_conditional_noise():
    for case in VECTORS["conditional_noise"]:
        x = torch.tensor([case["logits"]], dtype=torch.float64)
        got = softdraw.gumbel_noise(
            x.shape,
            seed=case["seed"],
            rows=torch.tensor([case["row"]]),
            stream=case["stream"],
            dtype=torch.float64,
            logits=x,
            index=torch.tensor([case["index"]]),
        )
        torch.testing.assert_close(got, torch.tensor([case["gumbel"]], dtype=torch.float64), rtol=1e-12, atol=1e-12)
