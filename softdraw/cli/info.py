"""``softdraw info``: what runs here, and why."""

from __future__ import annotations


def info() -> None:
    """Versions, devices, and which kernel body runs on each and why."""
    import platform

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
    for device in _devices():
        body = kernels.body(device).__name__.rpartition(".")[2]
        print(f"{device.type:<9} {_name(device)}: {body} kernels ({kernels.reason(device)})")


def _devices() -> list:
    import torch

    others = [torch.device(kind) for kind in ("cuda", "xpu", "mps") if getattr(torch, kind).is_available()]
    return [torch.device("cpu"), *others]


def _name(device) -> str:
    import platform

    import torch

    return torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
