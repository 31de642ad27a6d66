"""``softdraw bench``: what a draw costs on this machine."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from softdraw.cli.places import writing
from softdraw.errors import InputError, counted

SIZES = "32x10,256x32,8192x128,1024x8192,64x131072"


def bench(
    sizes: Annotated[str, typer.Option(help="Rows x categories, separated by commas; by default, by the device.")] = "",
    dtypes: Annotated[str, typer.Option(help="float32, bfloat16, float16, float64.")] = "float32,bfloat16",
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    threads: Annotated[str, typer.Option(help="Numbers of threads; 'all' is torch's own number.")] = "1,all",
    operations: Annotated[
        str,
        typer.Option(
            help="Groups (draws, rules, laws, losses, indices, subsets, modules, linear), lines such as ZGR, or all."
        ),
    ] = "draws",
    clock: Annotated[str, typer.Option(help="wall, or processor where other programs run.")] = "wall",
    rounds: Annotated[int, typer.Option(min=1, help="Rounds that the medians are taken over.")] = 15,
    out: Annotated[Path, typer.Option(help="Directory for bench.json and bench.png.")] = Path("runs/bench"),
) -> None:
    """Time this library beside stock torch, and against a copy; write a table, a file and a picture.

    By default draws of Gumbel-softmax and of indices are measured. rules: draws with the gradient of each rule, beside
    the rule by hand and our own gumbel_softmax; laws: beside torch.distributions; losses: beside those of torch;
    indices: draw_index and gumbel_topk beside torch.multinomial and Gumbel noise by hand; subsets: the numbers of
    Subset beside the recursion in log space; modules: a training step of Codebook, Latent, Router and Gate beside
    transformers and vector-quantize-pytorch, where they are installed, and by hand; linear: linear_draw beside the same
    with all logits, and beside the matrix products alone.

    ns/elem: of an element, and of a sample where there are several. kept: bytes an element that are kept for the
    backward pass beside inputs and result. peak MB: peak memory beyond the result.
    """
    from softdraw.bench import CLOCKS, Setting, cuda, left_out, measure, report
    from softdraw.recipes.runs import figures

    _check_device(device)
    _chosen("--clock", clock, tuple(CLOCKS))
    on_gpu = device == "cuda"
    sizes = sizes or (cuda.SIZES if on_gpu else SIZES)

    settings = [
        Setting(operation, rows, cols, dtype, number, device)
        for number in _threads("all" if on_gpu else threads)
        for dtype in _dtypes(dtypes)
        for operation in _operations(operations)
        for rows, cols in _sizes(sizes)
    ]
    figures.require()
    with writing(out):  # before minutes of measuring, not after them
        out.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=out).close()
    print("  ".join(f"{name} {value}" for name, value in report.machine(device).items()))
    for sentence in left_out(_operations(operations)):
        print(sentence)
    print(report.HEADER)
    results = []
    for setting in settings:
        results.append(measure(setting, rounds, clock))
        print(report.line(results[-1]), flush=True)
        with writing(out):
            report.write_json(out / "bench.json", results)  # a run that is stopped keeps what it has measured
    with writing(out):
        report.draw_picture(out / "bench.png", results)
    print(f"wrote {out / 'bench.json'} and {out / 'bench.png'}")


def _check_device(given: str) -> None:
    import torch

    if given not in ("cpu", "cuda"):
        raise InputError(f"--device {given!r}: choose from cpu, cuda")
    if given == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: torch sees no CUDA device here; leave the option out to time the CPU")


def _sizes(given: str) -> list[tuple[int, int]]:
    sizes = []
    for size in given.split(","):
        parts = size.strip().lower().split("x")
        if len(parts) != 2 or not all(p.isdigit() and int(p) > 0 for p in parts):
            raise InputError(f"--sizes {size!r}: write rows x categories, such as 1024x8192")
        sizes.append((int(parts[0]), int(parts[1])))
    return sizes


def _dtypes(given: str) -> list:
    import torch

    known = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "float64": torch.float64}
    return [known[name] for name in _chosen("--dtypes", given, tuple(known))]


def _operations(given: str) -> list[str]:
    from softdraw.bench import GROUPS, OPERATIONS

    parts = {name: list(lines) for name, lines in GROUPS.items()} | {name: [name] for name in OPERATIONS}
    parts["all"] = list(OPERATIONS)
    names = [name for part in _chosen("--operations", given, tuple(parts)) for name in parts[part]]
    return list(dict.fromkeys(names))


def _threads(given: str) -> list[int]:
    import torch

    numbers, most = [], max(os.cpu_count() or 1, torch.get_num_threads())
    for name in given.split(","):
        if name.strip() != "all" and not (name.strip().isdigit() and int(name) > 0):
            raise InputError(f"--threads {name!r}: write numbers from 1, or all")
        if name.strip() != "all" and int(name) > most:
            raise InputError(f"--threads {name!r}: this machine has {counted(most, 'CPU')}; write numbers up to {most}")
        numbers.append(torch.get_num_threads() if name.strip() == "all" else int(name))
    return list(dict.fromkeys(numbers))


def _chosen(option: str, given: str, known: tuple[str, ...]) -> list[str]:
    names = [name.strip() for name in given.split(",")]
    for name in names:
        if name not in known:
            raise InputError(f"{option} {name!r}: choose from {', '.join(known)}")
    return names
