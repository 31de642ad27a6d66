"""``softdraw bench``: what its figures mean, on sizes that take no time."""

from __future__ import annotations

import json

import pytest
import torch

from softdraw.bench import Setting, measure, timing
from softdraw.bench.memory import extra_bytes
from softdraw.cli import run


def test_a_ratio_is_their_time_over_ours(monkeypatch):
    seconds = {"softdraw": 1.0, "slow": 3.0}
    monkeypatch.setattr(timing, "contestants", lambda setting: {name: name for name in seconds})
    monkeypatch.setattr(timing, "_loops", lambda call: 1)
    monkeypatch.setattr(timing, "_time", lambda call, loops: seconds[call])
    monkeypatch.setattr(timing, "extra_bytes", lambda call: 0)
    result = measure(Setting("soft", 10, 20, torch.float32, 1), rounds=3)
    assert result.ratios == {"slow": 3.0}
    assert result.bandwidth == 2 * 10 * 20 * 4  # read and written, in one second


def test_extra_bytes_sees_a_temporary():
    x = torch.zeros(2**24)
    if extra_bytes(lambda: x) is None:
        pytest.skip("this system does not tell a process its peak")
    x.exp()
    assert extra_bytes(lambda: x.exp()) < 2**22
    assert 2**26 - 2**22 < extra_bytes(lambda: (x * 2).exp()) < 2**26 + 2**22


def test_the_command_writes_what_it_measured(tmp_path, capsys):
    options = ["--sizes", "8x4,16x3", "--dtypes", "float32", "--threads", "1", "--operations", "index", "--rounds", "2"]
    assert run(["bench", *options, "--out", str(tmp_path)]) == 0
    written = json.loads((tmp_path / "bench.json").read_text())
    assert [(r["rows"], r["cols"]) for r in written["results"]] == [(8, 4), (16, 3)]
    for r in written["results"]:
        assert set(r["ratios"]) == {"multinomial", "argmax"}
        assert r["bandwidth"] * r["seconds"]["softdraw"] == pytest.approx(r["rows"] * (4 * r["cols"] + 8))
    assert (tmp_path / "bench.png").stat().st_size > 1000
    assert "multinomial" in capsys.readouterr().out


@pytest.mark.parametrize(
    "options",
    [["--sizes", "8by4"], ["--dtypes", "int8"], ["--threads", "0"], ["--operations", "sideways"], ["--device", "tpu"]],
)
def test_a_bad_option_is_one_line(options, capsys):
    assert run(["bench", *options]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert options[0] in said
