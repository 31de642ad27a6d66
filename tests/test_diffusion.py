"""The parts of the language model against references: its bound, its masks, the law of its texts, its baselines."""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter
from pathlib import Path

import pytest
import torch
from scipy.stats import chisquare

import softdraw
from softdraw.recipes.diffusion import data
from softdraw.recipes.diffusion.loop import Trainer
from softdraw.recipes.diffusion.model import Experts, Transformer, counts, load, loss, masked, penalty
from softdraw.recipes.diffusion.settings import Settings
from softdraw.recipes.diffusion.writing import Writing, write
from softdraw.recipes.runs.ranks import Ranks

LENGTH, SIZE = 3, 2  # small enough to sum over every order


class Table(torch.nn.Module):
    """Any law for every canvas of 3 places, each 0, 1 or the mask: 27 rows of logits."""

    mask = SIZE

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.logits = 2 * torch.randn(27, LENGTH, SIZE, dtype=torch.float64, generator=generator)

    def forward(self, x):
        return self.logits[x @ torch.tensor([9, 3, 1])]


def of_orders(model, x):
    """p(x) of each order in which its places are written: the chain rule, by hand."""
    for order in itertools.permutations(range(LENGTH)):
        canvas, p = torch.full((LENGTH,), model.mask), 1.0
        for place in order:
            p *= float(model(canvas).softmax(-1)[place, x[place]])
            canvas[place] = x[place]
        yield p


def test_the_bound_is_the_mean_over_all_orders():
    """Over every count and every set of that size, once each: what the draws of k and M estimate."""
    model = Table()
    for x in itertools.product(range(SIZE), repeat=LENGTH):
        text = torch.tensor(x)
        terms = []
        for count in range(1, LENGTH + 1):
            sets = list(itertools.combinations(range(LENGTH), count))
            hidden = torch.tensor([[place in chosen for place in range(LENGTH)] for chosen in sets])
            terms.append(float(loss(model, text.expand(len(sets), -1), hidden).mean()))
        bound = LENGTH * sum(terms) / LENGTH
        wanted = sum(-math.log(p) for p in of_orders(model, x)) / math.factorial(LENGTH)
        assert bound == pytest.approx(wanted, rel=1e-12)
        assert bound >= -math.log(sum(of_orders(model, x)) / math.factorial(LENGTH))  # Jensen: it is a bound


def test_texts_have_exactly_the_law_that_the_bound_is_of():
    """In any order, a step for each place, at temperature 1: 3,000 texts beside the mean of p(x) over the orders."""
    model, how = Table(), Writing(order=math.inf, temperature=1.0)
    *_, texts = write(model, LENGTH, torch.arange(3000), 5, how)
    found = torch.bincount(texts @ torch.tensor([4, 2, 1]), minlength=8)
    law = [sum(of_orders(model, x)) / 6 for x in itertools.product(range(SIZE), repeat=LENGTH)]
    assert sum(law) == pytest.approx(1)
    assert chisquare(found, 3000 * torch.tensor(law)).pvalue > 1e-3


def test_the_surest_character_is_written_first_at_order_0():
    model, how = Table(), Writing(order=0.0, temperature=0.0)
    canvases = list(write(model, LENGTH, torch.arange(1), 0, how))
    assert (canvases[0] == model.mask).all()
    for before, after in itertools.pairwise(canvases):
        [changed] = (before != after)[0].nonzero()
        law = model(before)[0].softmax(-1).amax(-1).masked_fill(before[0] != model.mask, 0)
        assert int(changed) == int(law.argmax())
        assert int(after[0, changed]) == int(model(before)[0, changed].argmax())


def test_fewer_steps_write_several_places_at_a_time():
    model = Table()
    for steps, written in ((2, [0, 1, 3]), (1, [0, 3]), (9, [0, 1, 2, 3])):
        canvases = list(write(model, LENGTH, torch.arange(2), 0, Writing(steps=steps)))
        assert [int((canvas[0] != model.mask).sum()) for canvas in canvases] == written


def test_every_set_of_masked_places_is_equally_likely():
    hidden = masked(torch.full((6000,), 2), 4, softdraw.fold_in(1, torch.arange(6000)))
    found = Counter(tuple(row.nonzero().flatten().tolist()) for row in hidden)
    assert set(found) == set(itertools.combinations(range(4), 2))
    assert chisquare(list(found.values())).pvalue > 1e-3
    assert masked(torch.tensor([1, 4, 3]), 4, softdraw.fold_in(1, torch.arange(3))).sum(-1).tolist() == [1, 4, 3]


def test_counts_are_uniform_and_spread_evenly():
    drawn = torch.stack([counts(4, 8, softdraw.fold_in(0, i)) for i in range(1600)])
    for row in drawn.T:
        assert chisquare(torch.bincount(row, minlength=9)[1:]).pvalue > 1e-3
    shifted = ((drawn - drawn[:, :1]) % 8).unique(dim=0)
    assert shifted.tolist() == [[0, 2, 4, 6]]
    turned = torch.cat([counts(2, 8, torch.tensor(3), turn=turn) for turn in (0, 0.25)])
    assert sorted(((turned - turned[0]) % 8).tolist()) == [0, 2, 4, 6]


TEXT = "the cat sat on the mat, and the dog ate the hat. " * 40


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "text.txt"
    path.write_text(TEXT)
    return str(path)


def test_baselines_are_those_of_counting_by_hand(text):
    loaded = data.load(text, 16, 0.1, 3)
    train, valid = (
        ["".join(loaded.alphabet[i] for i in row) for row in part.tolist()] for part in (loaded.train, loaded.valid)
    )
    assert sorted(train + valid) == sorted(TEXT[i : i + 16] for i in range(0, len(TEXT) // 16 * 16, 16))
    assert len(valid) == round(0.1 * (len(TEXT) // 16))
    single, size = Counter("".join(train)), len(loaded.alphabet)
    total = sum(single.values())
    p = {c: (single[c] + 1) / (total + size) for c in loaded.alphabet}
    uni = -sum(math.log(p[c]) for row in valid for c in row) / sum(map(len, valid))
    assert data.unigram(loaded) == pytest.approx(uni, rel=1e-12)
    pairs = Counter(pair for row in train for pair in itertools.pairwise(row))
    firsts = Counter(c for row in train for c in row[:-1])
    costs = [-math.log(p[row[0]]) for row in valid]
    for row in valid:
        costs += [-math.log((pairs[a, b] + 10 * p[b]) / (firsts[a] + 10)) for a, b in itertools.pairwise(row)]
    assert data.bigram(loaded) == pytest.approx(sum(costs) / len(costs), rel=1e-12)


def trainer(text, **given):
    return Trainer(Settings(data=text, length=16, width=32, layers=1, **given), torch.device("cpu"), Ranks())


def test_an_untrained_model_is_the_unigram_law(text):
    found = trainer(text)
    x = found.valid.masked_fill(found.valid == 0, found.model.mask)
    with torch.no_grad():
        law = found.model(x).softmax(-1)
    torch.testing.assert_close(law, data.shares(found.text).float().expand_as(law))


def test_places_matter_and_the_global_generator_does_not(text):
    """Attention alone would give a text and the same one in another order the same laws, in that order."""
    models = []
    for state in (0, 1):
        torch.manual_seed(state)
        models.append(restless(trainer(text).model))
    for a, b in zip(*(model.parameters() for model in models), strict=True):
        assert torch.equal(a, b)
    x = torch.arange(16)[None] % 9
    with torch.no_grad():
        assert (models[0](x.flip(-1)).flip(-1) - models[0](x)).abs().max() > 0.1
        torch.nn.init.zeros_(models[0].near.weight)  # what is left is the turning of queries and keys
        assert (models[0](x.flip(-1)).flip(-1) - models[0](x)).abs().max() > 1e-3


def restless(model: Transformer) -> Transformer:
    """With random weights where it starts with zeros."""
    generator = torch.Generator().manual_seed(7)
    for name, weight in model.named_parameters():
        if name.endswith(("out.weight", "down.weight", "head.weight")):
            torch.nn.init.normal_(weight, std=0.3, generator=generator)
    return model


def test_a_text_is_the_same_alone_and_among_others(text):
    """To the last character, and at every step: the noise is keyed by the text, and the model sees one at a time."""
    model = restless(trainer(text).model)
    together = torch.stack(list(write(model, 16, torch.tensor([3, 0, 2, 1]), 9, Writing())))
    for place, number in enumerate((3, 0, 2, 1)):
        alone = torch.stack(list(write(model, 16, torch.tensor([number]), 9, Writing())))
        assert torch.equal(alone[:, 0], together[:, place])
    assert len(together[-1].unique(dim=0)) == 4
    *_, others = write(model, 16, torch.arange(4), 10, Writing())
    assert not torch.equal(others, together[-1][[1, 3, 2, 0]])


def test_experts_add_what_each_gives_to_its_characters():
    """Beside a loop over the characters, in float64; and k-hot weights that sum to one."""
    torch.manual_seed(0)
    layer = Experts(32, 5).double()
    x = torch.randn(3, 4, 32, dtype=torch.float64)
    for seeds in (None, torch.arange(3)):
        y, choice = layer(x, seeds)
        torch.testing.assert_close(choice.value.sum(-1), torch.ones(3, 4, dtype=torch.float64))
        for place in itertools.product(range(3), range(4)):
            chosen = zip(choice.value[place], choice.index[place].tolist(), strict=True)
            parts = [w * layer.experts[e](x[place]) for w, e in chosen]
            torch.testing.assert_close(y[place], parts[0] + parts[1])
    decided = layer(x, None)[1].index
    assert torch.equal(decided, layer.route.layer(x).topk(2).indices)
    assert not torch.equal(decided, choice.index)


def test_the_penalty_and_the_loads_by_hand():
    torch.manual_seed(0)
    choices = [Experts(32, 4)(torch.randn(2, 6, 32), torch.arange(2))[1] for _ in range(3)]
    wanted = 0.0
    for choice, row in zip(choices, load(choices).tolist(), strict=True):
        found = Counter(choice.index.flatten().tolist())
        assert row == [found[e] for e in range(4)]
        probability = choice.theta.double().softmax(-1).mean((0, 1)).tolist()
        wanted += 0.01 * 4 * sum(found[e] / 24 * probability[e] for e in range(4))
    assert penalty(choices).item() == pytest.approx(wanted, rel=1e-5)
    assert penalty([]) == 0


def test_a_route_depends_on_the_sequence_its_place_and_the_layer(text):
    """Not on what is routed beside it. Without seeds it is the decision."""
    model = restless(trainer(text, experts=4).model)
    x, seeds = torch.arange(48).view(3, 16) % 9, softdraw.fold_in(0, torch.arange(3))
    whole = [choice.index for choice in model.routed(x, seeds)[1]]
    alone = [choice.index for choice in model.routed(x[2:], seeds[2:])[1]]
    assert all(torch.equal(a[2:], b) for a, b in zip(whole, alone, strict=True))
    other = model.routed(x, seeds + 1)[1][0].index
    assert not torch.equal(other, whole[0])
    assert torch.equal(model(x), model.routed(x)[0])
    same = model.routed(x[:1].expand(3, -1), seeds)[1][0].index
    assert not torch.equal(same[0], same[1])


@pytest.mark.parametrize("experts", [1, 4])
@pytest.mark.parametrize("count", [2, 3, 7])
def test_gradients_are_those_of_one_rank_bit_for_bit(text, count, experts):
    """27 sequences in parts of 8, 8, 8 and 3: on 7 ranks three have none."""

    class Kept(Ranks):
        def sum(self, x):
            sums.append(x)
            return x

    found, ids, sums = trainer(text, experts=experts), torch.arange(30, 57), []
    seed = softdraw.fold_in(0, "step")
    whole = found.gradients(ids, seed)
    for rank in range(count):
        found.ranks = Kept(rank, count)
        found.gradients(ids, seed)
    assert torch.equal(torch.stack(sums).sum(0).sum(0), torch.cat([x.flatten() for x in whole]))
    if experts > 1:  # the penalty is that of a part
        return
    found.ranks = Ranks()
    hidden = found.hidden(ids, counts(len(ids), 16, seed), seed)
    error = loss(found.model, found.train[ids], hidden).mean()
    for a, b in zip(whole, [error.detach(), *torch.autograd.grad(error, found.weights)], strict=True):
        torch.testing.assert_close(a, b)


def test_masks_depend_on_the_sequence_and_not_on_its_place(text):
    found, ids = trainer(text), torch.arange(20)
    seed, count = softdraw.fold_in(0, 1), torch.arange(20) % 16 + 1
    whole = found.hidden(ids, count, seed)
    assert torch.equal(found.hidden(ids.flip(0)[:7], count.flip(0)[:7], seed), whole.flip(0)[:7])


def test_only_the_draws_of_this_library_are_used():
    folder = Path(data.__file__).parent
    sources = "".join(file.read_text() for file in folder.glob("*.py"))
    assert not re.search(r"\brand\w*\(|multinomial|bernoulli|\.exponential_|gumbel_max|gumbel_softmax", sources)
    assert set(re.findall(r"softdraw\.([a-z_]+)\(", sources)) == {"fold_in", "draw_index", "gumbel_topk"}
