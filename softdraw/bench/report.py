"""Shows the results: lines on the screen, a JSON file, a picture."""

from __future__ import annotations

import json
import platform
from pathlib import Path
from typing import Any

import torch

import softdraw
from softdraw.bench import cuda
from softdraw.bench.timing import Result
from softdraw.kernels import native

HEADER = (
    f"{'operation':<14}{'size':>12} {'dtype':<9}{'threads':>7}{'ns/elem':>9}{'GB/s':>7}{'of copy':>9}"
    f"{'extra MB':>10}  times faster than"
)


def machine(device: str = "cpu") -> dict[str, Any]:
    """What the numbers were measured on."""
    return {
        "cpu": _cpu_name(),
        "system": f"{platform.system()} {platform.machine()}",
        "threads": torch.get_num_threads(),
        "isa": native.isa() or "plain torch",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "softdraw": softdraw.__version__,
        **(cuda.machine() if device == "cuda" else {}),
    }


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def line(result: Result) -> str:
    """One line under ``HEADER``. "of copy" is the share of the bandwidth of a clone of the logits (2 bytes a byte)."""
    s, seconds = result.setting, result.seconds
    nanoseconds = seconds["softdraw"] / (s.rows * s.cols) * 1e9
    clone = seconds.get("clone")
    copied = 2 * s.rows * s.cols * torch.empty((), dtype=s.dtype).element_size()
    share = "" if clone is None else f"{result.bandwidth / (copied / clone):.0%}"
    extra = "" if result.extra_bytes is None else f"{result.extra_bytes / 2**20:.1f}"
    peers = "  ".join(f"{name} {ratio:.1f}" for name, ratio in result.ratios.items() if name != "clone")
    return (
        f"{s.operation:<14}{f'{s.rows}x{s.cols}':>12} {str(s.dtype).removeprefix('torch.'):<9}{s.threads:>7}"
        f"{nanoseconds:>9.2f}{result.bandwidth / 1e9:>7.1f}{share:>9}{extra:>10}  {peers}"
    )


def write_json(path: Path, results: list[Result]) -> None:
    """The machine and every result."""
    path.write_text(
        json.dumps({"machine": machine(results[0].setting.device), "results": [r.as_dict() for r in results]}, indent=1)
        + "\n"
    )


def draw_picture(path: Path, results: list[Result]) -> None:
    """Bars of the ratios, an operation a panel, on a logarithmic axis with 1 (as fast as stock) marked."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

    operations = list(dict.fromkeys(r.setting.operation for r in results))
    figure = Figure(figsize=(9, 2.2 * len(operations) + 1), layout="constrained")
    for axes, operation in zip(figure.subplots(len(operations), squeeze=False)[:, 0], operations, strict=True):
        rows = [r for r in results if r.setting.operation == operation]
        peers = [name for name in rows[0].ratios if name != "clone"]
        for i, peer in enumerate(peers):
            places = [k + (i - (len(peers) - 1) / 2) * 0.8 / len(peers) for k in range(len(rows))]
            axes.bar(places, [r.ratios[peer] for r in rows], width=0.8 / len(peers), label=f"against {peer}")
        axes.set_xticks(range(len(rows)), [_label(r) for r in rows], fontsize=7)
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(ScalarFormatter())
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.axhline(1, color="black", linewidth=0.8)
        axes.set_ylabel("times faster")
        axes.set_title(operation, fontsize=10)
        axes.legend(fontsize=7)
    figure.savefig(path, dpi=120)


def _label(result: Result) -> str:
    s = result.setting
    kind = {torch.float32: "fp32", torch.bfloat16: "bf16"}.get(s.dtype, str(s.dtype).removeprefix("torch."))
    return f"{s.rows}×{s.cols}\n{kind}\n{s.threads} thread{'s' * (s.threads > 1)}"
