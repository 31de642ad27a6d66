"""``softdraw bench``: what its figures mean, on sizes that take no time."""

from __future__ import annotations

import json
import time

import pytest
import torch

from softdraw.bench import GROUPS, OPERATIONS, Result, Setting, contestants, cuda, measure, report, timing
from softdraw.bench.line import Gradient
from softdraw.bench.memory import extra_bytes, kept_bytes
from softdraw.cli import run
from softdraw.cli.bench import _operations


def test_a_ratio_is_their_time_over_ours(monkeypatch):
    seconds = {"softdraw": 1.0, "slow": 3.0}
    monkeypatch.setattr(timing, "contestants", lambda setting: {name: name for name in seconds})
    monkeypatch.setattr(timing, "_loops", lambda call, clock: 1)
    monkeypatch.setattr(timing, "_time", lambda call, loops, clock: seconds[call])
    monkeypatch.setattr(timing, "extra_bytes", lambda call: 0)
    result = measure(Setting("soft", 10, 20, torch.float32, 1), rounds=3)
    assert result.ratios == {"slow": 3.0}
    assert result.bandwidth == 2 * 10 * 20 * 4  # read and written, in one second
    assert result.extra_bytes == {"softdraw": 0, "slow": 0}
    assert result.kept_bytes == {"softdraw": None, "slow": None}


def test_time_of_the_processor_does_not_count_a_wait():
    calls = {"softdraw": lambda: time.sleep(2e-4), "busy": lambda: sum(range(200_000))}
    wall, processor = (timing.cpu_times(calls, 3, timing.CLOCKS[clock]) for clock in ("wall", "processor"))
    assert min(wall["softdraw"]) >= 2e-4
    assert max(processor["softdraw"]) < 1e-4
    assert min(processor["busy"]) > 1e-4


def test_extra_bytes_sees_a_temporary():
    x = torch.zeros(2**24)
    if extra_bytes(lambda: x) is None:
        pytest.skip("this system does not tell a process its peak")
    x.exp()
    assert extra_bytes(lambda: x.exp()) < 2**22
    assert 2**26 - 2**22 < extra_bytes(lambda: (x * 2).exp()) < 2**26 + 2**22


def test_kept_bytes_counts_each_storage_once():
    """exp keeps its result, a product its factors; a view is no storage of its own, and inputs and result are there
    anyway."""

    def f(x, y):
        z = x.exp()
        return (z * z[:, :1] * y).exp()

    # Kept are z, which three nodes need, and z * z[:, :1].
    assert kept_bytes(Gradient(f, torch.zeros(100, 10), torch.ones(100, 10))) == 2 * 4000
    assert kept_bytes(Gradient(lambda x: x * 2, torch.zeros(100, 10))) == 0
    assert kept_bytes(lambda: torch.zeros(3)) is None


def test_kept_bytes_sees_what_a_function_keeps_as_an_attribute():
    class Hidden(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.parts = [torch.zeros(7), {"more": torch.zeros(5)}]
            ctx.save_for_backward(x.exp())
            return x.clone()

        @staticmethod
        def backward(ctx, grad):
            return grad

    assert kept_bytes(Gradient(lambda x: Hidden.apply(x) * 1, torch.zeros(10))) == 4 * (7 + 5 + 10)


def test_straight_through_by_hand_keeps_a_softmax():
    call = contestants.contestants(Setting("StraightThrough", 32, 10, torch.float32, 1))["by hand"]
    assert kept_bytes(call) == 4 * 320


def test_bytes_that_each_line_must_move():
    def moved(operation, dtype=torch.float32):
        return Setting(operation, 7, 5, dtype, 1).bytes_moved

    assert moved("ZGR") == 5 * 35 * 4
    assert moved("OneHot.log_prob") == 5 * 35 * 4 + 2 * 7 * 4
    assert moved("OneHot.log_prob", torch.bfloat16) == 5 * 35 * 2 + 2 * 7 * 2
    assert moved("categorical_nll", torch.bfloat16) == 3 * 35 * 2 + 2 * 7 * 8
    assert moved("index") == 35 * 4 + 7 * 8


def test_groups_and_lines_are_chosen_by_name():
    assert _operations("draws") == ["soft", "hard", "soft+backward", "hard+backward", "index"]
    assert _operations("losses,index,bernoulli_nll") == [*GROUPS["losses"], "index"]
    assert _operations("all") == list(OPERATIONS)
    assert sum(len(lines) for lines in GROUPS.values()) == len(OPERATIONS)  # no name is in two groups


def test_every_line_fits_in_120_columns():
    for operation in [name for group in ("rules", "laws", "losses") for name in GROUPS[group]]:
        calls = contestants.contestants(Setting(operation, 6, 5, torch.float32, 1))
        names = [name for name in calls if name != "softdraw"]
        setting = Setting(operation, 65536, 1024, torch.bfloat16, 16)
        everyone = ["softdraw", *names]
        bytes_each = dict.fromkeys(everyone, 12 * 2**26)
        result = timing.Result(
            setting, dict.fromkeys(everyone, 0.9), dict.fromkeys(names, 10.94), bytes_each, bytes_each
        )
        assert len(report.line(result)) <= 120, report.line(result)
        start = report.HEADER.index("  times faster")
        assert report.line(result)[start : start + 3] == "  " + names[0][0]  # columns are under their names


def test_a_line_of_samples_has_the_time_of_one():
    seconds = {"softdraw": 8e-3, "clone": 1e-3}
    setting = Setting("GumbelRao", 1000, 100, torch.float32, 2)
    result = timing.Result(setting, seconds, {"clone": 0.1}, {"softdraw": 3 * 2**20}, {"softdraw": 450_000})
    columns = report.line(result).split()
    assert columns[:3] == ["GumbelRao,", "10", "samples"]
    assert columns[6:] == ["8.00", "0.2", "31%", "4.5", "3.0"]
    assert result.as_dict()["samples"] == 10
    assert result.as_dict()["kept_bytes"] == {"softdraw": 450_000}


def test_memory_is_measured_for_every_contestant(tmp_path):
    options = ["--sizes", "8x4", "--dtypes", "float32", "--threads", "1", "--operations", "ZGR", "--rounds", "1"]
    assert run(["bench", *options, "--out", str(tmp_path)]) == 0
    (result,) = json.loads((tmp_path / "bench.json").read_text())["results"]
    everyone = {"softdraw", "by hand", "gumbel", "law", "clone"}
    assert set(result["kept_bytes"]) == set(result["extra_bytes"]) == set(result["seconds"]) == everyone
    assert result["kept_bytes"]["clone"] is None
    assert result["kept_bytes"]["by hand"] >= 3 * 4 * 32  # the softmax, its centred one-hot, the logarithm's part


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
    [
        ["--sizes", "8by4"],
        ["--dtypes", "int8"],
        ["--threads", "0"],
        ["--operations", "sideways"],
        ["--device", "tpu"],
        ["--clock", "sun"],
    ],
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
    result = timing.Result(
        Setting("index", 4096, 4096, torch.float32, 1, "cuda"),
        seconds,
        {"read": 0.8},
        {"softdraw": 0},
        {"softdraw": None},
    )
    shown = report.line(result)
    assert f"{(4096 * (4 * 4096 + 8)) / 1e-3 / 1e9:.1f}" in shown
    assert " 50% " in shown
    assert shown.endswith("read 0.8")


def test_a_picture_of_lines_whose_peers_are_not_there_at_every_size(tmp_path):
    def result(operation, cols, ratios):
        setting = Setting(operation, 2, cols, torch.float32, 1)
        names = ("softdraw", *ratios)
        return Result(setting, dict.fromkeys(names, 1e-3), ratios, dict.fromkeys(names, 0), dict.fromkeys(names))

    results = [
        result("Subset.mean", 1000, {"clone": 0.1}),
        result("Subset.mean", 100, {"recursion": 50.0, "clone": 0.1}),
        result("Subset.sample", 100, {"clone": 0.1}),
    ]
    report.draw_picture(tmp_path / "bench.png", results)
    assert (tmp_path / "bench.png").read_bytes()[:4] == b"\x89PNG"
