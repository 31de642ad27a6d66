"""``softdraw info``: what runs here, and why."""

from __future__ import annotations


def info() -> None:
    """Versions, devices, and which kernel body runs on each and why."""
    import platform
    import warnings

    import torch

    import softdraw
    from softdraw import kernels
    from softdraw.kernels import openmp

    print(f"softdraw  {softdraw.__version__}")
    print(f"torch     {torch.__version__}")
    print(f"python    {platform.python_version()} on {platform.system()} {platform.machine()}")
    alone = openmp.why_not()
    whose = f"its own: {alone}" if alone else "its own, or torch's OpenMP threads while they are awake"
    print(f"threads   {torch.get_num_threads()} ({whose})")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # the fallback to plain torch is a line here
        for device in _devices():
            body = kernels.body(device).__name__.rpartition(".")[2]
            print(f"{device.type:<9} {_name(device)}: {body} kernels ({kernels.reason(device)})")
            if body == "reference" and device.type in ("cpu", "cuda"):
                print(f"{'':<9} {_cost(device)}")


def _cost(device) -> str:
    """What plain torch costs where kernels could run: a soft draw beside that of torch, measured in half a second."""
    from statistics import median

    import torch

    import softdraw
    from softdraw.bench import cuda, timing

    x = torch.zeros(256, 32, device=device)
    calls = {"ours": lambda: softdraw.gumbel_softmax(x), "torch": lambda: torch.nn.functional.gumbel_softmax(x)}
    times = (cuda.times if device.type == "cuda" else timing.cpu_times)(calls, rounds=7)
    ratio = median(ours / stock for ours, stock in zip(times["ours"], times["torch"], strict=True))
    return (
        f"a soft draw of 256x32 takes {ratio:.2g} times as long as torch.nn.functional.gumbel_softmax, measured just "
        "now; with the kernels it is faster than that (benchmarks/README.md)"
    )


def _devices() -> list:
    import torch

    others = [torch.device(kind) for kind in ("cuda", "xpu", "mps") if getattr(torch, kind).is_available()]
    return [torch.device("cpu"), *others]


def _name(device) -> str:
    import platform

    import torch

    return torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
