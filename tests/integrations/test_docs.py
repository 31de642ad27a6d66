"""The examples of docs/other-libraries.md run as they stand, one after the other."""

import math
import re
from pathlib import Path

import pytest
import torch

pytestmark = [pytest.mark.integrations, pytest.mark.filterwarnings("ignore")]
for library in ("pyro", "torchrl", "tensordict", "lightning", "transformers", "accelerate"):
    pytest.importorskip(library, reason=f"the page shows {library}")

PAGE = Path(__file__).parents[2] / "docs" / "other-libraries.md"


def test_the_examples_run():
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.M | re.S)
    assert len(blocks) == 8
    names = {}
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), names)
    law = names["Unimix"](torch.zeros(3, requires_grad=True))
    assert law.sample(seed=0).requires_grad
    assert names["logits"].grad.abs().sum() > 0
    assert names["data"]["action"].sum() == 8
    assert not names["data"]["action"].requires_grad
    assert torch.equal(names["y"].sum(-1), torch.ones(2))
    metrics = names["trainer"].callback_metrics
    assert {"tau", "codebook/perplexity", "codebook/active_codes"} <= set(metrics)
    logged = [log for log in names["hf_trainer"].state.log_history if "loss" in log]
    assert [log["tau"] for log in logged] == pytest.approx([2 * math.exp(-0.001), 2 * math.exp(-0.003)])
    assert names["speech"].quantizer.temperature == 2.0
    assert names["texts"].shape == (2, 8)
