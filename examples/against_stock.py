"""What softdraw promises, measured beside torch.nn.functional.gumbel_softmax on this machine.

Run: python examples/against_stock.py
"""

import math
import warnings

import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

import softdraw

CASES = []


def case(question):
    """Register a measurement: a function of (draw, ours) that returns what to print."""
    return lambda measure: CASES.append((question, measure)) or measure


def attempt(call):
    """What a call says: its value, or the first words of its error."""
    try:
        return str(call())
    except Exception as error:
        return f"{type(error).__name__}: {str(error).partition(': ')[0].partition(', got')[0]}"


@case("a row with everything forbidden")
def _(draw, ours):
    return draw(torch.full((1, 3), -math.inf)).tolist()[0]


@case("tau = 1e-38")
def _(draw, ours):
    return draw(torch.tensor([[1.0, 2.0, 3.0]]), 1e-38).tolist()[0]


@case("tau = -1")
def _(draw, ours):
    return attempt(lambda: [round(x, 2) for x in draw(torch.tensor([[1.0, 2.0, 3.0]]), -1.0).tolist()[0]])


@case("a sample's draw when its batch is put in another order, same seed")
def _(draw, ours):
    logits, order = torch.randn(8, 5), torch.randperm(8)
    torch.manual_seed(1)
    a = draw(logits, **({"rows": torch.arange(8)} if ours else {}))
    torch.manual_seed(1)
    b = draw(logits[order], **({"rows": order} if ours else {}))
    return "same" if torch.equal(a[order], b) else "changes"


@case("eager against torch.compile, same torch.manual_seed")
def _(draw, ours):
    logits = torch.randn(8, 5)
    torch.manual_seed(1)
    a = draw(logits)
    torch.manual_seed(1)
    return "same" if torch.equal(a, torch.compile(draw)(logits)) else "differ"


@case("gradient under checkpoint(preserve_rng_state=False)")
def _(draw, ours):
    seed = {"seed": 7} if ours else {}
    grads = []
    for run in (lambda f, x: f(x), lambda f, x: checkpoint(f, x, preserve_rng_state=False, use_reentrant=False)):
        torch.manual_seed(1)
        x = torch.linspace(-1, 1, 12).view(3, 4).requires_grad_()
        (run(lambda x: draw(x, **seed), x) * torch.arange(4)).sum().backward()
        grads.append(x.grad)
    return "right" if torch.allclose(*grads) else "wrong, silently"


@case("dim passed in fourth place")
def _(draw, ours):
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        y = attempt(lambda: draw(torch.randn(3, 4), 1.0, False, 0).sum(0).allclose(torch.ones(4)))
    return {"False": "taken for eps" + (", with a warning" if said else ", silently")}.get(y, y)


@case("channels_last kept, dim=1")
def _(draw, ours):
    x = torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)
    return "yes" if draw(x, dim=1).is_contiguous(memory_format=torch.channels_last) else "no"


@case("memory kept for backward beside input and output, in sizes of the logits: soft, hard")
def _(draw, ours):
    counts = []
    for hard in (False, True):
        x, saved = torch.randn(1000, 100, requires_grad=True), {}
        hooks = torch.autograd.graph.saved_tensors_hooks(lambda t, s=saved: s.update({t.data_ptr(): t}), lambda t: t)
        with hooks:
            y = draw(x, 1.0, hard)
        own = (x.data_ptr(), y.data_ptr())  # the input and the output exist anyway
        counts.append(sum(t.numel() for p, t in saved.items() if p not in own) / x.numel())
    return ", ".join(f"{count:.0f}" for count in counts)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    print(f"torch {torch.__version__}\n")
    print("| | `F.gumbel_softmax` | `softdraw.gumbel_softmax` |\n|---|---|---|")
    for question, measure in CASES:
        torch.manual_seed(0)
        stock = measure(F.gumbel_softmax, False)
        torch.manual_seed(0)
        print(f"| {question} | {stock} | {measure(softdraw.gumbel_softmax, True)} |")
