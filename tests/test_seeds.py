"""Where the seed of a draw comes from when none is given, and for how long it is kept."""

from __future__ import annotations

import threading

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode

import softdraw
from softdraw import seeds
from softdraw.arguments import ROW_MAX
from softdraw.operators import operator
from softdraw.seeds import SEED_MIN

X = torch.randn(300, 7, generator=torch.Generator().manual_seed(1))


def drawn(n: int) -> list[torch.Tensor]:
    """The first seeds after ``manual_seed(0)``."""
    torch.manual_seed(0)
    return [torch.randint(SEED_MIN, ROW_MAX, ()) for _ in range(n)]


def leaf() -> torch.Tensor:
    return X.clone().requires_grad_()


@pytest.mark.parametrize(
    "draw",
    [
        lambda **seed: softdraw.gumbel_softmax(X, **seed),
        lambda **seed: softdraw.gumbel_softmax(X, hard=True, **seed),
        lambda **seed: softdraw.gumbel_softmax(leaf(), **seed),
        lambda **seed: softdraw.gumbel_softmax(leaf(), hard=True, **seed),
        lambda **seed: softdraw.gumbel_max(X, **seed),
        lambda **seed: torch.func.vmap(lambda x: softdraw.gumbel_max(x, **seed), randomness="same")(X),
        lambda **seed: softdraw.draw(softdraw.OneHotCategorical(logits=X), softdraw.ReinMax(), **seed),
    ],
)
def test_every_form_of_a_draw_takes_one_seed_as_randint_draws_it(draw):
    """So that a draw is the same with and without a gradient, eager, mapped and (tested elsewhere) compiled."""
    first, second = drawn(2)
    torch.manual_seed(0)
    assert torch.equal(draw(), draw(seed=first))
    assert torch.equal(draw(), draw(seed=second))


def test_a_draw_that_needs_its_seed_again_keeps_it():
    """The hard draw's backward pass makes its noise again, after other draws."""
    x, w = leaf(), torch.randn(300, 7, generator=torch.Generator().manual_seed(2))
    (seed,) = drawn(1)
    (expected,) = torch.autograd.grad(softdraw.gumbel_softmax(x, hard=True, seed=seed), x, w)
    torch.manual_seed(0)
    y = softdraw.gumbel_softmax(x, hard=True)
    softdraw.gumbel_softmax(x)
    softdraw.gumbel_max(x)
    assert torch.equal(torch.autograd.grad(y, x, w)[0], expected)


def test_threads_do_not_share_a_seed():
    """Together, many threads make the draws of the seeds that the generator gives, each once."""
    threads, each, found = 4, 50, []
    expected = sorted(softdraw.gumbel_max(X, seed=seed).tolist() for seed in drawn(threads * each))
    torch.manual_seed(0)

    def work() -> None:
        found.extend(softdraw.gumbel_max(X).tolist() for _ in range(each))

    workers = [threading.Thread(target=work) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert sorted(found) == expected


class Between(TorchFunctionMode):
    """Draws in the midst of another draw, as a signal handler may."""

    found: torch.Tensor | None = None

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is torch.empty_like and self.found is None:
            self.found = softdraw.gumbel_softmax(X)
        return func(*args, **(kwargs or {}))


def test_a_draw_within_a_draw_has_a_seed_of_its_own():
    first, second = drawn(2)
    torch.manual_seed(0)
    with Between() as between:
        outer = softdraw.gumbel_softmax(X)
    assert torch.equal(outer, softdraw.gumbel_softmax(X, seed=first))
    assert torch.equal(between.found, softdraw.gumbel_softmax(X, seed=second))


@pytest.mark.parametrize("mode", [torch.inference_mode, FakeTensorMode])
def test_a_first_draw_under_a_mode(mode, monkeypatch):
    """What it makes there serves later draws, which leave that mode."""
    monkeypatch.setattr(seeds, "_spare", spare := [])
    monkeypatch.setattr(operator, "keep_spare", spare.append)
    (seed,) = drawn(1)
    with mode():
        softdraw.gumbel_max(X if mode is torch.inference_mode else torch.zeros(3, 4))
    torch.manual_seed(0)
    assert torch.equal(softdraw.gumbel_max(X), softdraw.gumbel_max(X, seed=seed))
