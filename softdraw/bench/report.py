"""Shows the results: lines on the screen, a JSON file, a picture."""

from __future__ import annotations

import json
import math
import platform
from pathlib import Path
from typing import Any

import torch

import softdraw
from softdraw.bench import cuda
from softdraw.bench.contestants import Setting
from softdraw.bench.timing import Result
from softdraw.kernels import native

HEADER = (
    f"{'operation':<22}{'size':>11} {'dtype':<5}{'threads':>8}{'ns/elem':>8}{'GB/s':>6}{'of copy':>8}"
    f"{'kept':>6}{'peak MB':>8}  times faster than"
)
_SHORT = {torch.float64: "fp64", torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}


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
    """One line under ``HEADER``. "of copy" is the share of the bandwidth of a clone of the logits (2 bytes a byte);
    "kept" is bytes an element; where a rule draws several samples, ns/elem is for one of them."""
    s, seconds = result.setting, result.seconds
    elements = s.rows * s.cols
    clone, extra, kept = seconds.get("clone"), result.extra_bytes["softdraw"], result.kept_bytes["softdraw"]
    columns = [
        f"{_name(s):<22}{f'{s.rows}x{s.cols}':>11} {_SHORT[s.dtype]:<5}{s.threads:>8}",
        f"{seconds['softdraw'] / (elements * s.samples) * 1e9:>8.2f}{result.bandwidth / 1e9:>6.1f}",
        f"{'' if clone is None else f'{result.bandwidth / (2 * elements * s.dtype.itemsize / clone):.0%}':>8}",
        f"{'' if kept is None else f'{kept / elements:.1f}':>6}",
        f"{'' if extra is None else f'{extra / 2**20:.1f}':>8}",
    ]
    peers = "  ".join(f"{name} {_short(ratio)}" for name, ratio in result.ratios.items() if name != "clone")
    return "".join(columns) + "  " + peers


def _name(setting: Setting) -> str:
    return setting.operation + (f", {setting.samples} samples" if setting.samples > 1 else "")


def _short(ratio: float) -> str:
    """Two digits below 1 and three above: 0.95, 1.04, 12.3, 124."""
    return f"{ratio:.{2 if ratio < 1 else 3 if ratio < 1000 else 4}g}"


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
        # A peer may be left out where it would take too long; a line without any is shown beside the copy.
        peers = list(dict.fromkeys(name for r in rows for name in r.ratios if name != "clone")) or ["clone"]
        for i, peer in enumerate(peers):
            places = [k + (i - (len(peers) - 1) / 2) * 0.8 / len(peers) for k in range(len(rows))]
            axes.bar(
                places, [r.ratios.get(peer, math.nan) for r in rows], width=0.8 / len(peers), label=f"against {peer}"
            )
        axes.set_xticks(range(len(rows)), [_label(r) for r in rows], fontsize=7)
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(ScalarFormatter())
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.axhline(1, color="black", linewidth=0.8)
        axes.set_ylabel("times faster")
        axes.set_title(_name(rows[0].setting), fontsize=10)
        axes.legend(fontsize=7)
    figure.savefig(path, dpi=120)


def _label(result: Result) -> str:
    """The setting of a bar and the memory of ours."""
    s, extra, kept = result.setting, result.extra_bytes["softdraw"], result.kept_bytes["softdraw"]
    lines = [f"{s.rows}×{s.cols}", _SHORT[s.dtype], f"{s.threads} thread{'s' * (s.threads > 1)}"]
    if kept is not None:
        lines.append(f"keeps {kept / (s.rows * s.cols):.1f} bytes/elem")
    if extra is not None:
        lines.append(f"peak {extra / 2**20:.1f} MB")
    return "\n".join(lines)
