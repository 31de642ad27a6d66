"""The recipe that chooses k of n features: its parts against references, and a whole run whose answer is known."""

from __future__ import annotations

import io
import itertools
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.testing import assert_close

import softdraw
from softdraw import rules
from softdraw.cli import run as command
from softdraw.laws import Subset
from softdraw.recipes.runs.ranks import Ranks
from softdraw.recipes.runs.run import run
from softdraw.recipes.selector import SELECTOR, data, filters, report
from softdraw.recipes.selector.loop import CONCRETE, Trainer
from softdraw.recipes.selector.model import Networks
from softdraw.recipes.selector.retraining import accuracies, batches
from softdraw.recipes.selector.selectors import Concrete, KSubset
from softdraw.recipes.selector.settings import RULES, Settings
from softdraw.rules.needs import Need

TINY = {"width": 8, "batch_size": 50, "retraining": 20, "learning_rate": 0.02}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """The class is the largest of features 1, 4 and 7; the last three are copies of them with noise."""
    random = np.random.default_rng(0)
    x = random.normal(size=(400, 9))
    y = x[:, [1, 4, 7]].argmax(1)
    x = np.concatenate([x, x[:, [1, 4, 7]] + 0.7 * random.normal(size=(400, 3))], 1)
    path = tmp_path_factory.mktemp("data") / "largest.npz"
    np.savez(path, x=x, y=y)
    return path


def options(table, out, *more):
    given = {
        "--data": table,
        "--sizes": "2,3",
        "--seeds": 2,
        "--epochs": 16,
        "--batch": 100,
        "--lr": 0.02,
        "--out": out,
    }
    return ["train", "selector", *(str(word) for pair in given.items() for word in pair), *more]


@pytest.fixture(scope="module")
def whole(table, tmp_path_factory):
    """The folder of a run with every selector."""
    out = tmp_path_factory.mktemp("run") / "whole"
    assert command(options(table, out)) == 0
    return out


def test_a_run_finds_the_features_and_its_subsets_are_as_accurate_as_the_concrete_selector(whole):
    found = json.loads((whole / "chosen.json").read_text())
    accuracy = {(each["selector"], each["k"]): np.mean(each["accuracy"]) for each in found}
    of_subsets = [*Settings().chosen_rules]
    for each in found:
        if each["selector"] in of_subsets:
            assert all(len(set(names)) == each["k"] for names in each["features"])
    for k in (2, 3):
        best = max(accuracy[name, k] for name in of_subsets)
        assert accuracy["StraightThrough", k] >= accuracy[CONCRETE, k]
        assert best >= accuracy[CONCRETE, k]
    (three,) = (each["features"] for each in found if (each["selector"], each["k"]) == ("StraightThrough", 3))
    assert three == [["1", "4", "7"]] * 2  # not their noisy copies
    assert accuracy["StraightThrough", 3] > 0.9 > 0.85 > accuracy["StraightThrough", 2]


def test_the_pictures_show_what_was_chosen(whole):
    image = pytest.importorskip("PIL.Image")
    for name in ("chosen.png", "curves.png"):
        pixels = np.asarray(image.open(io.BytesIO((whole / name).read_bytes())).convert("L"))
        assert min(pixels.shape) > 200
        assert len(np.unique(pixels)) > 2


def test_stopped_and_resumed_equals_uninterrupted(table, tmp_path, monkeypatch):
    """Stopped in the third epoch, and again in the last, within the training of the final networks."""
    whole, cut, short = tmp_path / "whole", tmp_path / "cut", ["--rules", "imle,reinforce", "--epochs", "4"]
    assert command(options(table, whole, *short)) == 0
    for name, calls in (("_pass", 3), ("_finish", 1)):
        with monkeypatch.context() as patch:
            inner, left = getattr(Trainer, name), [calls]

            def stopping(trainer, inner=inner, left=left):
                left[0] -= 1
                if not left[0]:
                    raise KeyboardInterrupt
                return inner(trainer)

            patch.setattr(Trainer, name, stopping)
            assert command(options(table, cut, "--resume", *short)) == 130
    assert len((cut / "metrics.jsonl").read_text().splitlines()) == 3
    assert command(options(table, cut, "--resume", *short)) == 0
    for name in ("metrics.jsonl", "chosen.json", "chosen.png"):
        assert (cut / name).read_bytes() == (whole / name).read_bytes()


def test_an_extended_run_goes_on_and_chooses_again(table, tmp_path, capsys):
    given = {"data": str(table), "rules": "zgr", "sizes": "2", "seeds": 1, "retraining": 1}
    recipe = replace(SELECTOR, pictures=(), draw=lambda trainer: {})
    for epochs in (2, 4):
        run(recipe, given | {"epochs": epochs}, tmp_path, True, Ranks(), lambda *of: print(report.extension(*of)), str)
    said = capsys.readouterr().out
    assert "it goes on from 1 (it was 0.1)" in " ".join(said.split())
    records = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert ["ZGR k=2 accuracy" in record for record in records] == [False, True, False, True]
    assert [round(record["tau"], 6) for record in records] == [1.0, 0.1, 0.316228, 0.1]


def test_every_rule_that_serves_subsets_without_enumeration_is_compared():
    serving = Subset(torch.zeros(4), 2).offers
    wanted = {
        name
        for name in rules.__all__
        if getattr(rules, name).needs in serving and getattr(rules, name).needs is not Need.STATES
    }
    assert {type(rule).__name__ for rule in Settings().chosen_rules.values()} == wanted
    assert len(RULES.split(",")) == len(wanted)


def test_networks_are_separate_perceptrons():
    networks = Networks(3, 4, 6, 5, generator())
    x, y = torch.randn(2, 3, 7, 4, generator=generator(1)), torch.randint(5, (3, 7), generator=generator(2))
    logits, losses = networks(x), networks.losses(x, y)
    for i in range(3):
        one = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.ReLU(), torch.nn.Linear(6, 5))
        with torch.no_grad():
            for layer, weight, bias in ((0, "first", "first_bias"), (2, "second", "second_bias")):
                one[layer].weight.copy_(getattr(networks, weight)[i].T)
                one[layer].bias.copy_(getattr(networks, bias)[i, 0] + 0.1 * layer)
        networks.second_bias.data[i] += 0.2
        logits = networks(x)
        assert_close(one(x[:, i]), logits[:, i])
        wanted = torch.nn.functional.cross_entropy(one(x[1, i]), y[i], reduction="none")
        assert_close(networks.losses(x, y)[1, i], wanted)
    assert losses.shape == (2, 3, 7)
    assert_close(networks.errors(x[0], y), (logits[0].argmax(-1) != y).double().mean(-1))


@pytest.mark.parametrize("rule", [softdraw.LeaveOneOut(2), softdraw.Reinforce(), softdraw.StraightThrough()], ids=repr)
def test_a_subset_is_trained_by_its_tempered_law(rule):
    """The mean over 20,000 equal rows beside the sum over all 10 subsets: the loss and, of rules without bias, its
    gradient. Bounds: 5 standard errors."""
    selector = KSubset(rule, 2, 1, 5)
    selector.theta.data = torch.randn(1, 5, generator=generator(3))
    networks, tau, rows = Networks(1, 5, 6, 3, generator()), 0.7, 20_000
    x, y = torch.randn(1, 1, 5, generator=generator(4)).expand(1, rows, 5), torch.zeros(1, rows, dtype=torch.long)
    losses = selector.losses(networks, x, y, tau, torch.tensor(0), torch.arange(rows).view(1, -1))
    theta = selector.theta.detach().double().requires_grad_()
    every = torch.tensor([[i in both for i in range(5)] for both in itertools.combinations(range(5), 2)]).double()
    p = (every @ theta[0] / tau).softmax(0)
    values = networks.losses((every.float() * x[:, 0]).unsqueeze(0), y[:, :1].expand(1, 10))[0].double().detach()
    exact = (p * values).sum()
    error = float((p * (values - exact).square()).sum().sqrt().detach()) / rows**0.5
    assert float(losses.mean().detach()) == pytest.approx(float(exact.detach()), abs=5 * error)
    if rule.needs is Need.SAMPLES:
        (wanted,) = torch.autograd.grad(exact, theta)
        (found,) = torch.autograd.grad(losses.mean(), selector.theta)
        assert_close(found.double(), wanted, rtol=0, atol=5 * float(values.std()) / tau / rows**0.5)


def test_the_concrete_selector_draws_k_times_and_may_repeat_itself():
    selector, networks = Concrete(3, 2, 4, generator()), Networks(2, 3, 6, 3, generator(1))
    x, y = torch.randn(2, 5, 4, generator=generator(2)), torch.randint(3, (2, 5), generator=generator(3))
    ids = torch.arange(10).view(2, 5)
    losses = selector.losses(networks, x, y, 0.5, torch.tensor(7), ids)
    for r, b in itertools.product(range(2), range(5)):
        m = [softdraw.gumbel_softmax(selector.theta[r, j], 0.5, seed=7, rows=3 * int(ids[r, b]) + j) for j in range(3)]
        seen = torch.stack([(each * x[r, b]).sum() for each in m])
        logits = networks(seen.expand(2, 1, 3))[r, 0]
        assert_close(losses[r, b], torch.nn.functional.cross_entropy(logits, y[r, b]))
    selector.theta.data = 9.0 * torch.nn.functional.one_hot(torch.tensor([[2, 2, 0], [3, 1, 0]]), 4)
    assert selector.chosen().tolist() == [[True, False, True, False], [True, True, False, True]]
    assert_close(selector.decided(x)[0], x[0][:, [2, 2, 0]])


def test_a_choice_has_the_same_accuracy_whatever_is_trained_beside_it(table):
    features = data.load(str(table))
    splits = data.split(features, 2, 0.25, generator())
    settings = Settings(**TINY)
    best, worst = torch.zeros(2, 12, dtype=torch.bool), torch.zeros(2, 12, dtype=torch.bool)
    best[:, [1, 4, 7]], worst[:, [0, 2, 3]] = True, True
    together = accuracies(splits, torch.stack((best, worst, best)), 3, settings, generator())
    assert torch.equal(together[0], together[2])
    assert torch.equal(accuracies(splits, worst[None], 3, settings, generator())[0], together[1])
    assert (together[0] > 0.9).all()
    assert (together[1] < 0.6).all()  # three classes: chance is a third


def test_the_final_network_is_a_perceptron_of_stock_torch_on_the_chosen_columns(table):
    splits, columns = data.split(data.load(str(table)), 1, 0.25, generator()), [4, 9, 11]
    settings = Settings(width=8, batch_size=50, retraining=2, learning_rate=0.02)
    chosen = torch.zeros(1, 1, 12, dtype=torch.bool)
    chosen[..., columns] = True
    found = accuracies(splits, chosen, 3, settings, generator(5))
    order = generator(5)
    start = Networks(1, 12, 8, 3, order)
    model = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
    model.load_state_dict(
        {"0.weight": start.first[0, columns].T, "0.bias": torch.zeros(8)}
        | {"2.weight": start.second[0].T, "2.bias": torch.zeros(3)}
    )
    optimizer, step = torch.optim.Adam(model.parameters(), lr=0.02), 0
    for _ in range(2):
        for x, y, _ids in batches(splits, 50, order):
            optimizer.param_groups[0]["lr"] = 0.02 * min(1, 2 - step / 6)  # 12 steps
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(x[0][:, columns]), y[0]).backward()
            optimizer.step()
            step += 1
    right = model(splits.valid_x[0][:, columns]).argmax(-1) == splits.valid_y[0]
    assert float(found) == pytest.approx(float(right.double().mean()), abs=1e-9)


def test_splits_are_scaled_by_their_training_rows_alone(table):
    features = data.load(str(table))
    splits = data.split(features, 3, 0.25, generator())
    assert splits.x.shape == (3, 300, 12)
    assert splits.valid_y.shape == (3, 100)
    assert_close(splits.x.mean(1), torch.zeros(3, 12), rtol=0, atol=1e-5)
    assert_close(splits.x.std(1), torch.ones(3, 12), rtol=0, atol=1e-5)
    assert splits.valid_x.mean(1).abs().max() > 1e-3
    assert not torch.equal(splits.y[0], splits.y[1])
    whole = torch.cat((splits.y, splits.valid_y), 1).sort(-1).values
    assert torch.equal(whole, features.y.sort().values.expand(3, -1))


def test_filters_take_the_features_that_matter(table):
    pytest.importorskip("sklearn")
    splits = data.split(data.load(str(table)), 1, 0.25, generator())
    (three, six) = filters.mutual_information(splits.x[0], splits.y[0], [3, 6])
    assert six.nonzero().flatten().tolist() == [1, 4, 7, 9, 10, 11]  # copies too, though they tell nothing new
    assert three.sum() == 3
    assert (three <= six).all()
    for k, of in zip((3, 5, 12), filters.l1(splits.x[0], splits.y[0], [3, 5, 12]), strict=True):
        assert of.sum() == k
        assert of[[1, 4, 7]].all()


def test_bundled_data_are_those_of_scikit_learn():
    datasets = pytest.importorskip("sklearn.datasets")
    for name, loaded in (("digits", datasets.load_digits()), ("cancer", datasets.load_breast_cancer())):
        features = data.load(name)
        assert np.array_equal(features.x, loaded.data.astype(np.float32))
        assert np.array_equal(features.y, loaded.target)
        assert len(features.names) == loaded.data.shape[1]
