"""A training step of published models with F.gumbel_softmax, and with softdraw.gumbel_softmax in its place.

The models are those of other people's packages, which this script installs from PyPI into build/real-models (without
their dependencies on CUDA builds) and runs unchanged. Only the name gumbel_softmax that they call is replaced.

Run: python benchmarks/real_models.py [--rounds 15] [--threads 2] [--only wav2vec2]
"""

from __future__ import annotations

import argparse
import importlib
import statistics
import subprocess
import sys
import time
import types
from pathlib import Path
from unittest.mock import MagicMock

import torch
import torch.nn.functional as F

import softdraw

PLACE = Path(__file__).resolve().parent.parent / "build" / "real-models"
PACKAGES = ("einops==0.8.2", "einx==0.4.3", "loguru==0.7.3", "transformers==5.24.0")
ON_TORCH = (  # installed without what they ask for: torch is here
    "x-transformers==2.31.10",
    "torch-einops-utils==0.2.0",
    "dalle-pytorch==1.6.6",
    "axial-positional-embedding==0.3.12",
    "rotary-embedding-torch==0.9.1",
    "taming-transformers-rom1504==0.0.6",
)
UNUSED = (
    "torchvision",
    "youtokentome",
    "dalle_pytorch.vae",
    "dalle_pytorch.tokenizer",
)  # imported, not used by the dVAE
MODELS = {}


def model(name):
    """Register a model: a function that returns what it draws, the model, and a function that computes its loss."""
    return lambda make: MODELS.setdefault(name, make)


def ours(logits, tau=1, hard=False, eps=1e-10, dim=-1):
    """softdraw's draw with the arguments of stock torch."""
    return softdraw.gumbel_softmax(logits, tau, hard, dim=dim)


@model("x-transformers, attention with Gumbel-softmax")
def _():
    from x_transformers import Decoder, TransformerWrapper

    layers = Decoder(dim=256, depth=4, heads=4, attn_gumbel_softmax=True)
    net = TransformerWrapper(num_tokens=256, max_seq_len=512, attn_layers=layers)
    tokens = torch.randint(256, (4, 512))
    return "16 x 512 rows of 512, four times, hard", net, lambda: F.cross_entropy(net(tokens).mT, tokens)


@model("DALL-E's dVAE (dalle-pytorch), 8,192 tokens")
def _():
    net = module_of("dalle_pytorch", "dalle_pytorch").DiscreteVAE(
        image_size=64, num_tokens=8192, codebook_dim=256, num_layers=2, num_resnet_blocks=1, hidden_dim=64
    )
    images = torch.rand(8, 3, 64, 64)
    return "2,048 rows of 8,192, soft, dim=1", net, lambda: net(images, return_loss=True)


@model("VQGAN's Gumbel quantiser (taming-transformers), 8,192 codes")
def _():
    net = importlib.import_module("taming.modules.vqvae.quantize").GumbelQuantize(256, 256, 8192)
    features = torch.randn(4, 256, 16, 16, requires_grad=True)

    def loss():
        quantised, penalty, _ = net(features)
        return quantised.square().mean() + penalty

    return "1,024 rows of 8,192, hard, dim=1", net, loss


@model("wav2vec 2.0 pre-training (transformers)")
def _():
    from transformers import Wav2Vec2Config, Wav2Vec2ForPreTraining
    from transformers.models.wav2vec2.modeling_wav2vec2 import _compute_mask_indices, _sample_negative_indices

    config = Wav2Vec2Config(hidden_size=256, num_hidden_layers=4, num_attention_heads=4, intermediate_size=1024)
    net = Wav2Vec2ForPreTraining(config)
    sound, length = torch.randn(2, 32000), int(net._get_feat_extract_output_lengths(32000))
    masked = _compute_mask_indices((2, length), 0.2, 2)
    negatives = torch.tensor(_sample_negative_indices((2, length), config.num_negatives, masked))
    known = {"mask_time_indices": torch.tensor(masked), "sampled_negative_indices": negatives}
    return f"{2 * length * 2} rows of 320, hard", net, lambda: net(sound, **known).loss


@model("GroupViT (transformers)")
def _():
    from transformers import GroupViTVisionConfig, GroupViTVisionModel

    config = GroupViTVisionConfig(
        hidden_size=128,
        intermediate_size=512,
        depths=[2, 2, 2],
        num_attention_heads=4,
        num_hidden_layers=6,
        image_size=112,
    )
    net = GroupViTVisionModel(config)
    images = torch.randn(8, 3, 112, 112)
    return "49 columns of 64 groups, then 64 of 8, hard, dim=-2", net, lambda: net(images).pooler_output.square().mean()


def module_of(package, name):
    """A module of a package whose own __init__ asks for what is not needed here."""
    bare = types.ModuleType(package)
    bare.__path__ = [str(PLACE / package)]
    sys.modules.setdefault(package, bare)
    missing = {unused: MagicMock() for unused in UNUSED if unused not in sys.modules}
    sys.modules.update(missing)
    try:
        return importlib.import_module(f"{package}.{name}")
    finally:
        for unused in missing:
            del sys.modules[unused]


def callers():
    """(module, name) of each gumbel_softmax that a model calls."""
    found = [(F, "gumbel_softmax")]
    group = sys.modules.get("transformers.models.groupvit.modeling_groupvit")
    return [*found, (group, "gumbel_softmax")] if group else found


def prepared(make, replaced):
    """The model and its step, with the draw that it was made with: some keep the function from then on."""
    torch.manual_seed(0)
    make()  # loads what it needs, so that callers() finds it
    kept = [(module, name, getattr(module, name)) for module, name in callers()]

    def switch(on):
        for module, name, stock in kept:
            setattr(module, name, ours if on else stock)

    torch.manual_seed(0)
    switch(replaced)
    what, net, loss = make()
    switch(False)
    net.train()
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-4)

    def step():
        switch(replaced)
        start = time.perf_counter()
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
        seconds = time.perf_counter() - start
        switch(False)
        return seconds

    return what, step


def compare(make, rounds):
    """What is drawn, and the seconds of a step with stock torch's draw and ours, alternately."""
    what, stock = prepared(make, replaced=False)
    _, replaced = prepared(make, replaced=True)
    steps, seconds = (stock, replaced), ([], [])
    for i in range(rounds + 2):  # the first two warm up
        for k in (0, 1) if i % 2 else (1, 0):
            taken = steps[k]()
            if i > 1:
                seconds[k].append(taken)
    return what, *seconds


def install():
    PLACE.mkdir(parents=True, exist_ok=True)
    pip = [sys.executable, "-m", "pip", "install", "-q", "--upgrade", "--target", str(PLACE)]
    subprocess.run([*pip, *PACKAGES], check=True)
    subprocess.run([*pip, "--no-deps", *ON_TORCH], check=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--only", default="", help="models whose name contains this")
    options = parser.parse_args()
    if not (PLACE / "x_transformers").exists():
        install()
    sys.path.append(str(PLACE))
    torch.set_num_threads(options.threads)
    print(f"torch {torch.__version__}, {options.threads} threads, float32, medians of {options.rounds} steps\n")
    print("| model | draws in a step | stock, ms | softdraw, ms | times faster |\n|---|---|---|---|---|")
    for name, make in MODELS.items():
        if options.only.lower() in name.lower():
            what, stock, replaced = compare(make, options.rounds)
            ratio = statistics.median(a / b for a, b in zip(stock, replaced, strict=True))
            a, b = statistics.median(stock) * 1e3, statistics.median(replaced) * 1e3
            print(f"| {name} | {what} | {a:.0f} | {b:.0f} | {ratio:.2f} |", flush=True)


if __name__ == "__main__":
    main()
