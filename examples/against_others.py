"""The same draw, one-hot forward and with a gradient, in softdraw and in other libraries, measured on this machine.

Needs reinmax, relaxit and pyro-ppl (pip install --no-deps reinmax relaxit; pip install pyro-ppl).
Run: python examples/against_others.py
"""

import math
import time
import warnings

import pyro.distributions
import reinmax
import relaxit.distributions
import torch
import torch.nn.functional as F

import softdraw

TAU = torch.tensor(1.0)
OURS = {  # logits (..., K) -> one-hots of that shape, with the gradient of an estimator
    "straight-through Gumbel-softmax": lambda x: softdraw.draw(x, softdraw.StraightThroughGumbel(1.0)),
    "straight-through": lambda x: softdraw.draw(x, softdraw.StraightThrough()),
    "ReinMax": lambda x: softdraw.draw(x, softdraw.ReinMax(1.0)),
}
OTHERS = {  # the same in another library, and the estimator that it is
    "`F.gumbel_softmax`": ("straight-through Gumbel-softmax", lambda x: F.gumbel_softmax(x, 1.0, hard=True)),
    "`OneHotCategoricalStraightThrough` of torch": (
        "straight-through",
        lambda x: torch.distributions.OneHotCategoricalStraightThrough(logits=x).rsample(),
    ),
    "`RelaxedOneHotCategoricalStraightThrough` of Pyro": (
        "straight-through Gumbel-softmax",
        lambda x: pyro.distributions.RelaxedOneHotCategoricalStraightThrough(TAU, logits=x).rsample(),
    ),
    "`GumbelSoftmaxTopK(K=1)` of relaxit": (
        "straight-through Gumbel-softmax",
        lambda x: relaxit.distributions.GumbelSoftmaxTopK(logits=x, K=torch.tensor(1), tau=TAU, hard=True).rsample(),
    ),
    "`reinmax`": ("ReinMax", lambda x: reinmax.reinmax(x, 1.0)[0]),
}


def attempt(measure, draw):
    """What a measurement says, or the name of its error."""
    try:
        return measure(draw)
    except Exception as error:
        return type(error).__name__


def frequencies(draw, n=200_000):
    """How often (0.7, 0.2, 0.1) is drawn as each."""
    logits = torch.tensor([0.7, 0.2, 0.1]).log().expand(n, 3)
    return ", ".join(f"{share:.3f}" for share in draw(logits).mean(0).tolist())


def nothing_allowed(draw):
    """A row of -inf."""
    return str(draw(torch.full((1, 3), -math.inf)).tolist()[0])


def forbidden_gradient(draw):
    """The gradient of a category that is forbidden by -inf."""
    logits = torch.tensor([[0.5, -math.inf, 0.0]], requires_grad=True)
    (draw(logits) * torch.tensor([1.0, 5.0, 2.0])).sum().backward()
    return "0" if logits.grad[0, 1] == 0 else f"{logits.grad[0, 1].item():.2g}"


def bias(draw, n=400_000):
    """The length of bias over that of the true gradient, for f(y) = (<v, y> - 1)^2; its noise is about 0.005."""
    values, theta = torch.tensor([0.0, 1.0, 3.0]), torch.tensor([0.5, 0.0, -0.5])
    p = theta.double().softmax(-1)
    f = (values.double() - 1) ** 2
    truth = p * (f - (p * f).sum())
    logits = theta.expand(n, 3).clone().requires_grad_()
    ((draw(logits) @ values - 1) ** 2).sum().backward()
    return f"{((logits.grad.double().mean(0) - truth).norm() / truth.norm()).item():.2f}"


MEASURES = {
    "law (0.7, 0.2, 0.1) drawn as": frequencies,
    "a row with everything forbidden": nothing_allowed,
    "gradient of a forbidden category": forbidden_gradient,
    "bias": bias,
}


def seconds(draws, size, rounds=25):
    """The least of a draw with its backward pass, taking turns: other work on the machine only adds."""
    logits, grad = torch.randn(size), torch.randn(size)
    least = dict.fromkeys(draws, math.inf)
    for _ in range(rounds):
        for name, draw in draws.items():
            x = logits.clone().requires_grad_()
            start = time.perf_counter()
            draw(x).backward(grad)
            least[name] = min(least[name], time.perf_counter() - start)
    return least


def table(head, lines):
    print("|", " | ".join(head), "|\n" + "|---" * len(head) + "|")
    for line in lines:
        print("|", " | ".join(line), "|")
    print()


def main():
    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    others = {name: draw for name, (_, draw) in OTHERS.items()}
    draws = {f"softdraw, {name}": draw for name, draw in OURS.items()} | others
    rows = [[name, *(attempt(measure, draw) for measure in MEASURES.values())] for name, draw in draws.items()]
    table(["draw", *MEASURES], rows)
    sizes = [(256, 32), (8192, 128)]
    times = [seconds(draws, size) for size in sizes]
    ratios = [
        [name, kind, *(f"{t[name] / t[f'softdraw, {kind}']:.1f}" for t in times)] for name, (kind, _) in OTHERS.items()
    ]
    table(["draw with its backward pass", "estimator", *(f"{r} x {c}: times softdraw's" for r, c in sizes)], ratios)


if __name__ == "__main__":
    main()
