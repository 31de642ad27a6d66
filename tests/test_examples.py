"""The examples of modules: what they print, beside the obvious baseline."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
pytestmark = pytest.mark.long


def printed(name: str) -> dict[str, list[float]]:
    """The numbers of every line that an example prints, by its first words."""
    out = subprocess.run(
        [sys.executable, EXAMPLES / name], check=True, capture_output=True, text=True, timeout=300
    ).stdout
    rows = (re.match(r"(.*?[a-z:])\s+([\d\[].*)$", line) for line in out.splitlines())
    return {row[1].strip(): [float(x) for x in re.findall(r"[\d.]+", row[2])] for row in rows if row}


def test_eight_codes_beat_the_mean_and_come_near_eight_floats():
    error = {name: row[-1] for name, row in printed("quantise_digits.py").items()}
    assert error["PCA, 8 floats"] < 0.03
    assert error["8 codes, 32 bits"] < 1.1 * error["PCA, 8 floats"] < 0.4 * error["mean image"]


def test_a_mixture_of_linear_experts_beats_a_linear_model():
    found = printed("route_experts.py")
    assert found["8 experts, 2 a row"][-1] > found["one linear model"][-1] + 0.005
    assert min(found["rows of each expert:"]) > 30


def test_gates_find_columns_without_noise():
    found = printed("select_features.py")
    (accuracy, columns, noise), (of_all, _, noise_of_all) = found["gates"], found["all columns"]
    assert accuracy > of_all
    assert columns < 30
    assert noise == 0
    assert noise_of_all == 70


@pytest.mark.parametrize("name", ["quantise_digits.py", "route_experts.py", "select_features.py"])
def test_they_are_short(name):
    assert len((EXAMPLES / name).read_text().splitlines()) < 80
