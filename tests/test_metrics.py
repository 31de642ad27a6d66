"""Code usage against sums written out by hand, accumulated, grouped and over ranks."""

import math

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from softdraw.metrics import CodeUsage, code_usage


def perplexity(p):
    return math.exp(-sum(x * math.log(x) for x in p if x > 0))


def test_probabilities():
    y = torch.tensor([[0.5, 0.3, 0.2, 0.0], [0.1, 0.6, 0.3, 0.0], [0.0, 0.7, 0.3, 0.0]])
    got = code_usage(y)
    assert got["perplexity_soft"] == pytest.approx(perplexity([0.2, 1.6 / 3, 0.8 / 3]))
    assert got["perplexity_hard"] == pytest.approx(perplexity([1 / 3, 2 / 3]))
    assert got["active_codes"] == 2
    assert got["largest_probability"] == pytest.approx(2 / 3)
    assert code_usage(y.T, dim=0) == got
    assert all(type(value) in (int, float) for value in got.values())


def test_indices_are_their_one_hots():
    index = torch.randint(0, 6, (40, 3), generator=torch.Generator().manual_seed(0))
    one_hot = torch.nn.functional.one_hot(index, 7).float()
    assert code_usage(index, num_codes=7) == code_usage(one_hot)
    assert code_usage(index, num_codes=7)["active_codes"] == 6
    assert code_usage(index, num_codes=7, group_dim=1) == code_usage(one_hot, group_dim=1)
    assert code_usage(index.T, num_codes=7, group_dim=0) == code_usage(one_hot.movedim(1, 2), dim=1, group_dim=2)


def test_groups_are_means_over_codebooks():
    index = torch.tensor([[0, 3], [1, 3], [2, 3], [3, 3]])
    got = code_usage(index, num_codes=4, group_dim=1)
    assert got["perplexity_hard"] == pytest.approx((4 + 1) / 2)
    assert got["active_codes"] == 4 + 1
    assert got["largest_probability"] == 1.0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_half_precision_does_not_saturate(dtype):
    # 70,000 rows: a float16 sum would be inf.
    y = torch.zeros(70_000, 2, dtype=dtype)
    y[:, 0] = 1
    y[:35_000] = y[:35_000].flip(-1)
    assert code_usage(y)["perplexity_soft"] == pytest.approx(2)


def test_rows_without_a_code_are_left_out():
    y = torch.tensor([[1.0, 0, 0], [0, 0, 0], [math.nan, 0, 0], [0, 1, 0]])
    assert code_usage(y) == code_usage(y[[0, 3]]) == code_usage(torch.tensor([0, -1, -1, 1]), num_codes=3)
    empty = code_usage(torch.zeros(0, 3))
    assert math.isnan(empty["perplexity_soft"])
    assert empty["active_codes"] == 0


def test_accumulates_and_resets():
    y = torch.rand(90, 2, 5, generator=torch.Generator().manual_seed(0)).softmax(-1)
    usage = CodeUsage(5, groups=2)
    for part in y.split(40):
        usage.update(part)
    want = code_usage(y, group_dim=1)
    assert usage.compute() == pytest.approx(want)
    assert usage.compute() == usage.compute()
    usage.reset()
    assert usage.hard.sum() == usage.soft.sum() == 0


def test_metric_errors():
    with pytest.raises(ValueError, match="num_codes is needed"):
        code_usage(torch.tensor([1]))
    with pytest.raises(ValueError, match="from 0 to 3, or -1"):
        code_usage(torch.tensor([4]), num_codes=4)
    with pytest.raises(ValueError, match=r"end in the shape \(2, 5\), got \(3, 5\)"):
        CodeUsage(5, groups=2).update(torch.zeros(3, 5))
    with pytest.raises(ValueError, match=r"down to -3: write logits.softmax\(-1\)"):
        code_usage(torch.tensor([[-3.0, 1.0], [2.0, 1.0]]))
    with pytest.raises(ValueError, match="at least 1"):
        CodeUsage(0)


def usage_worker(rank, store, queue):
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    usage = CodeUsage(4)
    usage.update(torch.tensor([0, 1]) if rank == 0 else torch.tensor([2, 2, 2]))
    queue.put((usage.compute(), usage.hard.tolist()))
    dist.barrier()
    dist.destroy_process_group()


def test_ranks_are_added_up(tmp_path, ranks_results):
    context = mp.get_context("spawn")
    queue = context.Queue()
    workers = [
        context.Process(daemon=True, target=usage_worker, args=(rank, str(tmp_path / "store"), queue))
        for rank in range(2)
    ]
    results = ranks_results(workers, queue)
    want = code_usage(torch.tensor([0, 1, 2, 2, 2]), num_codes=4)
    assert [result[0] for result in results] == [want, want]
    assert sorted(result[1] for result in results) == [[[0, 0, 3, 0]], [[1, 1, 0, 0]]]  # own sums stay own
