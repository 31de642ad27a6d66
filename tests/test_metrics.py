"""Code usage against sums written out by hand, accumulated, grouped and over ranks."""

import math

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

import softdraw
from softdraw import metrics
from softdraw.integrations.watch import Watch
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
    y = torch.tensor([[1.0, 0, 0], [0, 0, 0], [0, 0, 0], [0, 1, 0]])
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


NOT_PROBABILITIES = {
    "a row with NaN": torch.tensor([[1.0, 0.0], [math.nan, 0.0]]),
    "down to -3": torch.tensor([[-3.0, 4.0], [0.5, 0.5]]),
    "sums to 9": torch.tensor([[9.0, 0.0], [0.5, 0.5]]),
    "sums to 0.3": torch.tensor([[0.5, 0.5], [0.2, 0.1]]),
    "sums to inf": torch.tensor([[math.inf, 0.0], [0.5, 0.5]]),
}


@pytest.mark.parametrize("words", NOT_PROBABILITIES)
def test_rows_that_are_no_probabilities(words, monkeypatch):
    y = NOT_PROBABILITIES[words]
    with pytest.raises(ValueError, match=f"codes must be one-hots or probabilities, got .*{words}"):
        code_usage(y)
    # As on an accelerator, where nothing is read before compute.
    monkeypatch.setattr(metrics, "_readable", lambda x: False)
    assert all(math.isnan(value) for value in code_usage(y).values())
    assert code_usage(torch.tensor([[1.0, 0.0], [0.0, 0.0]]))["perplexity_soft"] == 1.0


def test_an_index_outside_the_codebook_where_nothing_can_be_read(monkeypatch):
    monkeypatch.setattr(metrics, "_readable", lambda x: False)
    for index in (4, -2, 7, 9):
        usage = CodeUsage(4)
        usage.update(torch.tensor([0, index]))
        assert usage.hard.tolist() == [[1, 0, 0, 0]]
        assert all(math.isnan(value) for value in usage.compute().values())
    usage.reset()
    usage.update(torch.tensor([0, 3, -1]))
    assert usage.compute()["perplexity_hard"] == 2.0


def test_one_bad_group_spoils_the_result(monkeypatch):
    monkeypatch.setattr(metrics, "_readable", lambda x: False)
    y = torch.full((3, 2, 4), 0.25)
    y[1, 1, 0] = math.nan
    assert all(math.isnan(value) for value in code_usage(y, group_dim=1).values())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("categories", [1, 10, 1000, 100_000])
def test_rounded_probabilities_are_probabilities(dtype, categories):
    logits = torch.randn(20, categories, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for scale in (0.0, 1.0, 10.0):
        p = (scale * logits).softmax(-1)
        got = code_usage(p.to(dtype))["perplexity_soft"]
        assert got == pytest.approx(perplexity(p.mean(0).tolist()), rel=0.02)


Y = torch.full((2, 3), 1 / 3)
INDEX = torch.tensor([0, 1])
ERRORS = [
    (lambda: code_usage(None), TypeError, ["codes", "None"]),
    (lambda: code_usage([0, 1], num_codes=2), TypeError, ["codes", "list"]),
    (lambda: code_usage(torch.Tensor), TypeError, ["codes", "class Tensor"]),
    (lambda: code_usage(Y > 0), TypeError, ["codes", "torch.bool", "(2, 3)"]),
    (lambda: code_usage(Y.cfloat()), TypeError, ["codes", "torch.complex64"]),
    (lambda: code_usage(INDEX), ValueError, ["num_codes", "needed"]),
    (lambda: code_usage(INDEX + 3, num_codes=4), ValueError, ["from 0 to 3", "-1", "3 to 4"]),
    (lambda: code_usage(INDEX, num_codes=0), ValueError, ["num_codes", "at least 1", "got 0"]),
    (lambda: code_usage(INDEX, num_codes=2.0), TypeError, ["num_codes", "2.0", "int"]),
    (lambda: code_usage(Y, num_codes=4), ValueError, ["(4,)", "(2, 3)"]),
    (lambda: code_usage(Y, dim=None), TypeError, ["dim", "None"]),
    (lambda: code_usage(Y, dim=1.0), TypeError, ["dim", "1.0"]),
    (lambda: code_usage(Y, dim=(0, 1)), TypeError, ["dim", "tuple"]),
    (lambda: code_usage(Y, dim=True), TypeError, ["dim", "True"]),
    (lambda: code_usage(Y, dim=2), IndexError, ["dim", "-2 to 1", "(2, 3)", "got 2"]),
    (lambda: code_usage(Y[0, 0]), IndexError, ["dim", "()"]),
    (lambda: code_usage(Y, group_dim=7), IndexError, ["group_dim", "-2 to 1", "got 7"]),
    (lambda: code_usage(Y, group_dim=0.0), TypeError, ["group_dim", "0.0"]),
    (lambda: code_usage(Y, group_dim=-1), ValueError, ["group_dim", "dim", "(2, 3)"]),
    (lambda: code_usage(Y, group_dim=1, dim=-1), ValueError, ["group_dim", "dim", "1 and -1"]),
    (lambda: code_usage(Y.expand(0, 2, 3), group_dim=0), ValueError, ["one group", "(0, 2, 3)"]),
    (lambda: code_usage(Y[:, :0]), ValueError, ["one category", "(2, 0)"]),
    (lambda: CodeUsage(0), ValueError, ["num_codes", "at least 1"]),
    (lambda: CodeUsage(4, groups=0), ValueError, ["groups", "at least 1"]),
    (lambda: CodeUsage(None), TypeError, ["num_codes", "None"]),
    (lambda: CodeUsage(4, "2"), TypeError, ["groups", "'2'"]),
    (lambda: CodeUsage(5, groups=2).update(torch.zeros(3, 5)), ValueError, ["(2, 5)", "(3, 5)"]),
    (lambda: CodeUsage(5).update(5), TypeError, ["codes", "5"]),
]


@pytest.mark.parametrize(("call", "error", "words"), ERRORS)
def test_metric_errors(call, error, words):
    with pytest.raises(error) as caught:
        call()
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_numpy_integers_are_integers():
    import numpy as np

    assert code_usage(Y, dim=np.int64(1)) == code_usage(Y)
    assert code_usage(INDEX, num_codes=np.int32(3))["active_codes"] == 2


def watched_on(rank):
    """What a rank logs of a module that both ran and of two that one rank each ran, in two periods."""
    model = nn.ModuleDict({name: softdraw.nn.Codebook(None, 4, 2) for name in ("both", "first", "second")})
    watch, found = Watch(None, usage=True), []
    watch.start(model, 0)
    for period in range(2):
        for name, codes in (("both", [rank]), ("second" if (rank + period) % 2 else "first", [2, 3, 3])):
            model[name](logits=1e3 * nn.functional.one_hot(torch.tensor(codes), 4).float().unsqueeze(1))
        found.append(watch.numbers())
    return found


def usage_worker(rank, store, queue):
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    usage = CodeUsage(4)
    usage.update(torch.tensor([0, 1]) if rank == 0 else torch.tensor([2, 2, 2]))
    queue.put((usage.compute(), usage.hard.tolist(), watched_on(rank)))
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
    used = {"both": [1, 1, 0, 0], "first": [0, 0, 1, 2], "second": [0, 0, 1, 2]}
    for result in results:
        for numbers in result[2]:
            assert len(numbers) == 2 * len(used)
            for name, counts in used.items():
                assert numbers[f"{name}/active_codes"] == 2
                shares = [count / sum(counts) for count in counts]
                assert numbers[f"{name}/perplexity"] == pytest.approx(perplexity(shares))


def test_small_integers_index_a_large_codebook():
    for codes in (torch.tensor([0, 255], dtype=torch.uint8), torch.tensor([0, -1, 100], dtype=torch.int8)):
        wide = code_usage(codes.long(), num_codes=300)
        assert code_usage(codes, num_codes=300) == wide


def test_a_group_without_a_code_is_left_out():
    found = code_usage(torch.tensor([[0, -1], [1, -1]]), num_codes=3, group_dim=1)
    assert found == {"perplexity_soft": 2.0, "perplexity_hard": 2.0, "active_codes": 2, "largest_probability": 0.5}
