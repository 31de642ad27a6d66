"""A language model's head whose vocabulary is split over ranks: draws, losses and gradients without gathering logits.

    torchrun --nproc-per-node 4 examples/vocab_parallel.py

Every rank holds some columns of the head. It draws the next token, takes the loss, and passes a gradient through a
draw, and sends 8 to 24 bytes a row. Then the ranks gather the logits, as it is usually done, and compare.
"""

import torch
import torch.distributed as dist

import softdraw
from softdraw import distributed

VOCABULARY, WIDTH, ROWS, SEED = 32_003, 64, 16, 5  # the vocabulary divides by neither 4 nor 2


def block_of(rank: int, ranks: int) -> slice:
    """The columns of a rank: uneven, so that no block begins at a multiple of four by design."""
    edges = [VOCABULARY * r // ranks for r in range(ranks + 1)]
    return slice(edges[rank], edges[rank + 1])


def gathered(own: torch.Tensor, ranks: int) -> torch.Tensor:
    """The whole rows on every rank: what this program does without, here for the comparison."""
    whole = torch.zeros(ROWS, VOCABULARY)
    whole[:, block_of(dist.get_rank(), ranks)] = own.detach()
    dist.all_reduce(whole)
    return whole


def main() -> None:
    dist.init_process_group("gloo")
    rank, ranks = dist.get_rank(), dist.get_world_size()
    mine = block_of(rank, ranks)
    made = torch.Generator().manual_seed(0)  # the same weights and inputs on every rank, of which each keeps its part
    weight = torch.randn(VOCABULARY, WIDTH, generator=made)[mine].requires_grad_()
    hidden, value = torch.randn(ROWS, WIDTH, generator=made), torch.randn(VOCABULARY, generator=made)
    ids = torch.arange(ROWS) * 1000 + 7  # of the requests: a row draws the same in any batch

    logits = hidden @ weight.T / 8
    token, log_prob, entropy = distributed.draw_index(logits, mine.start, seed=SEED, rows=ids)
    sample = distributed.draw(logits, mine.start, rule=softdraw.ZGR(), seed=SEED, rows=ids)
    loss = distributed.categorical_nll(logits, token, mine.start)
    ((sample * value[mine]).sum() + loss).backward()

    whole = gathered(logits, ranks).requires_grad_()
    expected = softdraw.draw_index(whole, seed=SEED, rows=ids)
    one_hot = softdraw.draw(whole, softdraw.ZGR(), seed=SEED, rows=ids)
    expected_loss = softdraw.losses.categorical_nll(whole, expected.index)
    ((one_hot * value).sum() + expected_loss).backward()
    assert whole.grad is not None and weight.grad is not None  # noqa: PT018
    expected_gradient = whole.grad[:, mine].T @ hidden / 8

    apart = (weight.grad - expected_gradient).abs().max() / expected_gradient.abs().max()
    facts = torch.stack(
        [
            torch.tensor(float(torch.equal(token, expected.index))),
            torch.tensor(float(torch.equal(sample.detach(), one_hot.detach()[:, mine]))),
            -(log_prob - expected.log_prob).abs().max().detach(),
            -(entropy - expected.entropy).abs().max().detach(),
            -apart,
        ]
    )
    dist.all_reduce(facts, dist.ReduceOp.MIN)  # the worst of all ranks
    if rank == 0:
        print(f"{ranks} ranks, {VOCABULARY:,} tokens, {ROWS} rows: {token[:4].tolist()} ...")
        print(f"tokens equal: {bool(facts[0])}; one-hots equal: {bool(facts[1])}")
        print(
            f"largest differences: log-probability {-facts[2]:.0e}, entropy {-facts[3]:.0e}, gradient {-facts[4]:.0e}"
        )
        print(f"bytes a row and rank: 24 for a token, {4 * VOCABULARY // ranks:,} for the logits")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
