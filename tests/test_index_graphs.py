"""Seeds from seeds, single columns and draws of indices in every kind of graph: exported, traced, compiled."""

from __future__ import annotations

import pytest
import torch
from leaves import make
from torch.fx.experimental.proxy_tensor import make_fx

import softdraw

X, IDS = make((4, 3, 6)), torch.tensor([2, 0, 5, 3])


def everything(x, ids):
    seeds = softdraw.fold_in(3, ids, "a")
    at = ids.unsqueeze(-1).expand(4, 3)
    plain = softdraw.draw_index(x, seed=seeds, temperature=0.5)
    cut = softdraw.draw_index(x, seed=3, top_k=at + 1, top_p=0.9, min_p=0.01, rows=5)
    return (
        seeds,
        softdraw.noise_at(at, seed=seeds),
        softdraw.uniform_at(at, seed=3),
        softdraw.gumbel_noise((4, 3, 6), seed=3, logits=x, index=at),
        *(plain.index, plain.log_prob, plain.entropy),  # by name, for torch.fx unpacks nothing
        *(cut.index, cut.log_prob, cut.entropy),
        softdraw.gumbel_topk(x, 2, seed=seeds, temperature=0.7),
        softdraw.multinomial(x.exp(), 2, replacement=True, seed=seeds),
        softdraw.multinomial(x.exp(), 2, seed=3),
    )


class Module(torch.nn.Module):
    def forward(self, x, ids):
        return everything(x, ids)


WAYS = {
    "export": lambda: torch.export.export(Module(), (X, IDS)).module(),
    "make_fx": lambda: make_fx(everything)(X, IDS),
    "make_fx with symbols": lambda: make_fx(everything, tracing_mode="symbolic")(X, IDS),
    "fx": lambda: torch.fx.symbolic_trace(Module()),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_graph_gives_what_the_functions_give(way):
    graph = WAYS[way]()
    for x, ids in ((X, IDS), (make((4, 3, 6), seed=1), IDS.flip(0))):  # nothing of the first inputs is left in it
        for got, want in zip(graph(x, ids), everything(x, ids), strict=True):
            torch.testing.assert_close(got, want)


def test_k_of_rows_says_why_it_is_in_no_graph():
    for way in (torch.export.export, lambda m, args: make_fx(m)(*args)):

        class Ordered(torch.nn.Module):
            def forward(self, x, ids):
                return softdraw.gumbel_topk(x, ids.unsqueeze(-1).expand(4, 3), seed=3)

        with pytest.raises(Exception, match="k must be an int where its values cannot be read"):
            way(Ordered(), (X, IDS))


def test_meta_tensors_have_the_shapes():
    want = everything(X, IDS)
    for got, real in zip(everything(X.to("meta"), IDS.to("meta")), want, strict=True):
        assert (got.shape, got.dtype, got.is_meta) == (real.shape, real.dtype, True)
