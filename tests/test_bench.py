"""``softdraw bench``: what its figures mean, on sizes that take no time."""

from __future__ import annotations

import json

import pytest
import torch

from softdraw.bench import Setting, contestants, cuda, measure, report, timing
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


class Clock:
    """Stands in for a GPU whose calls take a known time: events that read it, and a busy wait that passes it."""

    now = 0.0

    class Event:
        def __init__(self, enable_timing):
            assert enable_timing

        def record(self):
            self.at = Clock.now

        def synchronize(self):
            pass

        def elapsed_time(self, end):
            return (end.at - self.at) * 1e3  # milliseconds


def test_a_gpu_is_timed_between_its_events(monkeypatch):
    """Neither emptying the cache nor the wait that gives the host its lead counts; calls take turns at going first."""
    order = []

    def call(name, seconds):
        def run():
            order.append(name)
            Clock.now += seconds
            return torch.zeros(1)

        return run

    def sleep(cycles):
        Clock.now += 1.0
        order.append("wait")

    monkeypatch.setattr(cuda, "_larger_than_the_cache", lambda: torch.zeros(4))
    monkeypatch.setattr(cuda, "gpu_sleep", sleep)
    monkeypatch.setattr(torch.cuda, "Event", Clock.Event)
    times = cuda.times({"a": call("a", 2e-3), "b": call("b", 5e-3)}, rounds=3)
    assert times == {"a": pytest.approx([2e-3] * 3), "b": pytest.approx([5e-3] * 3)}
    rounds = order[2 * cuda._WARM :]
    assert rounds[1::2] == ["a", "b", "b", "a", "a", "b"]
    assert rounds[::2] == ["wait"] * 6


def test_on_a_gpu_an_index_is_compared_with_reading_the_logits(monkeypatch):
    monkeypatch.setattr(torch.Tensor, "to", lambda x, device, dtype: x.type(dtype))
    for dtype, cols in ((torch.float32, 5), (torch.bfloat16, 6), (torch.bfloat16, 5)):
        calls = contestants.contestants(Setting("index", 3, cols, dtype, 1, "cuda"))
        assert list(calls) == ["softdraw", "multinomial", "argmax", "read", "clone", "softmax"]
        x, words = calls["clone"](), calls["read"]()
        expected = x.view(torch.int32).amax() if x.numel() % 2 == 0 or dtype == torch.float32 else x.amax()
        assert torch.equal(words, expected)
        assert calls["softdraw"]().shape == (3,)


def test_the_share_of_a_copy_in_a_line():
    """An index that takes as long as a copy has half its bandwidth: it reads, and writes next to nothing."""
    seconds = {"softdraw": 1e-3, "clone": 1e-3, "read": 0.8e-3}
    result = timing.Result(Setting("index", 4096, 4096, torch.float32, 1, "cuda"), seconds, {"read": 0.8}, 0)
    shown = report.line(result)
    assert f"{(4096 * (4 * 4096 + 8)) / 1e-3 / 1e9:.1f}" in shown
    assert " 50% " in shown
    assert shown.endswith("read 0.8")
