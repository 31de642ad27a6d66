"""The codebook module: lookup against the product, usage, and codes that get a new start; over ranks in gloo."""

import math

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from test_dtensor import on_rank
from torch import nn
from torch.testing import assert_close

import softdraw
from softdraw.metrics import CodeUsage
from softdraw.nn import Codebook, reseed
from softdraw.nn.lookup import look_up, product
from tests.methods import PATHWISE, label, one_hot_logits
from tests.modules import MODULES, batch, loss, made

LOGITS = one_hot_logits(7, 3, 5)


def codes(groups, width=2, seed=3):
    return one_hot_logits(groups, 5, width, seed=seed).requires_grad_()


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("rule", PATHWISE, ids=label)
def test_the_value_and_both_gradients_are_those_of_the_product(rule, shared):
    module = Codebook(None, 5, 6, 3, rule=rule, shared=shared).double()
    theta, weight = LOGITS.clone().requires_grad_(), one_hot_logits(7, 6, seed=1)
    mask = torch.ones(7, 3, 5, dtype=torch.bool)
    mask[2, 1] = False
    choice = module(logits=theta, mask=mask, seed=2)
    y = softdraw.draw(softdraw.OneHotCategorical(theta, mask), rule, seed=2)
    by_hand = torch.einsum("ngk,gkd->ngd", y, module.codebook.expand(3, -1, -1)).flatten(1)
    assert_close(choice.value, by_hand)
    assert torch.equal(choice.index, y.argmax(-1).masked_fill(~mask.any(-1), -1))
    found = torch.autograd.grad((choice.value.square() * weight).sum(), (theta, module.codebook))
    exact = torch.autograd.grad((by_hand.square() * weight).sum(), (theta, module.codebook))
    assert_close(found, exact)


def test_the_lookup_is_the_product_of_one_hots():
    index = torch.tensor([[0, 4, 2], [3, 3, -1]])
    y = nn.functional.one_hot(index.clamp_min(0), 5).double().masked_fill((index < 0).unsqueeze(-1), 0).requires_grad_()
    for groups in (1, 3):
        codebook = codes(groups)
        exact = torch.einsum("ngk,gkd->ngd", y, codebook.expand(3, -1, -1))
        assert_close(look_up(y, index, codebook), exact)
        assert_close(product(y, codebook), exact)
        assert torch.autograd.gradcheck(lambda c: look_up(y.detach(), index, c), codebook)
        assert torch.autograd.gradgradcheck(lambda c: look_up(y.detach(), index, c).square(), codebook)


def test_evaluation_takes_the_likeliest_code_and_its_logits_get_no_gradient():
    module = Codebook(None, 5, 6, 3).double().eval()
    theta = LOGITS.clone().requires_grad_()
    choice = module(logits=theta)
    assert torch.equal(choice.index, theta.argmax(-1))
    expected = torch.stack([module.codebook[g, choice.index[:, g]] for g in range(3)], 1).flatten(1)
    assert torch.equal(choice.value, expected)
    of_theta, of_codes = torch.autograd.grad(choice.value.sum(), (theta, module.codebook), allow_unused=True)
    assert of_theta is None or not of_theta.any()
    counts = torch.zeros(3, 5).double()
    for g in range(3):
        counts[g] = torch.bincount(choice.index[:, g], minlength=5)
    assert_close(of_codes, counts.unsqueeze(-1).expand(3, 5, 2))


def test_nan_makes_its_own_row_nan():
    module, theta = Codebook(None, 5, 6, 3), LOGITS.float().clone()
    clean = module(logits=theta, seed=1)
    theta[4, 1, 2] = math.nan
    choice = module(logits=theta, seed=1)
    assert choice.value[4, 2:4].isnan().all()
    assert choice.index[4, 1] == -1
    assert_close(choice.value[:4], clean.value[:4])


def test_losses_and_usage_are_functions_of_a_choice():
    module = Codebook(6, 5, 6, 3)
    choice = module(batch(64), seed=0)
    p = choice.theta.softmax(-1)
    mean = p.mean(0)
    perplexity = torch.exp(-torch.special.xlogy(mean, mean).sum(-1))
    assert_close(softdraw.losses.diversity(choice.theta, group_dim=-2), ((5 - perplexity) / 5).mean())
    kl = torch.special.xlogy(p, p).sum(-1) + math.log(5)
    assert_close(softdraw.losses.kl_to_uniform(choice.theta), kl.mean())
    usage = softdraw.metrics.code_usage(choice.index, num_codes=5, group_dim=-1)
    used = sum(len(choice.index[:, g].unique()) for g in range(3))
    assert usage["active_codes"] == used


def test_the_codebook_is_a_parameter_that_learns():
    module = Codebook(6, 5, 4)
    assert isinstance(module.codebook, nn.Parameter)
    assert module.codebook.requires_grad
    before = module.codebook.detach().clone()
    optimizer = torch.optim.SGD(module.parameters(), 0.1)
    choice = module(batch(), seed=0)
    choice.value.sum().backward()
    optimizer.step()
    moved = (module.codebook.detach() != before).any(-1)[0]
    assert moved.nonzero().squeeze(-1).tolist() == choice.index.unique().tolist()


def starved(shared=False, groups=2):
    """A codebook, a batch, and counts that say which codes nobody used."""
    torch.manual_seed(0)
    module, x = Codebook(6, 5, 4, groups, shared=shared), batch(40)
    counts = torch.tensor([[9, 0, 3, 0, 0], [0, 7, 7, 0, 1]])[:groups]
    return module, x, counts


def test_codes_start_again_at_rows_of_the_batch():
    module, x, counts = starved()
    before = {n: p.detach().clone() for n, p in module.named_parameters()}
    changed = reseed(module, x, counts, seed=1)
    assert torch.equal(changed, counts == 0)
    weight, old = module.layer.weight.view(2, 5, 6), before["layer.weight"].view(2, 5, 6)
    bias, old_bias = module.layer.bias.view(2, 5), before["layer.bias"].view(2, 5)
    assert torch.equal(module.codebook[~changed], before["codebook"][~changed])
    assert torch.equal(weight[~changed], old[~changed])
    rows = set()
    for g, k in changed.nonzero().tolist():
        direction = weight[g, k] / weight[g, k].norm()
        row = nn.functional.cosine_similarity(x, direction.unsqueeze(0)).argmax()
        rows.add(row.item())
        assert_close(direction, x[row] / x[row].norm())
        assert_close(weight[g, k].norm(), old[g][~changed[g]].norm(dim=-1).mean())
        assert_close(bias[g, k], old_bias[g][~changed[g]].mean())
        p = (x[row] @ old[g].T + old_bias[g]).softmax(-1)
        assert_close(module.codebook[g, k], p @ before["codebook"][g])
    assert len(rows) > 3
    assert not reseed(module, x, torch.ones(2, 5, dtype=torch.int64), seed=1).any()


def test_rows_are_drawn_alike_and_by_their_ids():
    picked = torch.zeros(40)
    for seed in range(40):
        module, x, counts = starved()
        reseed(module, x, counts, seed=seed)
        direction = module.layer.weight.view(2, 5, 6)[counts == 0]
        rows = nn.functional.cosine_similarity(x.unsqueeze(1), direction, dim=-1).argmax(0)
        picked += torch.bincount(rows, minlength=40)
    assert picked.sum() == 40 * 5
    assert ((picked - 5).square() / 5).sum() < 73  # chi-square with 39 degrees of freedom, p = 0.0008
    order = torch.randperm(40, generator=torch.Generator().manual_seed(0))
    (a, x, counts), (b, _, _) = starved(), starved()
    reseed(a, x, counts, seed=5)
    reseed(b, x[order], counts, seed=5, rows=order)
    assert_close(a.state_dict(), b.state_dict())


def test_a_shared_codebook_and_one_without_a_layer():
    module, x, counts = starved(shared=True)
    before = module.codebook.detach().clone()
    changed = reseed(module, x, counts, seed=1)
    assert changed.tolist() == [[False, False, False, True, False]]
    assert torch.equal((module.codebook != before).any(-1), changed)
    alone, vectors = Codebook(None, 5, 4, 2), batch(40)[:, :4]
    changed = reseed(alone, vectors, counts, seed=1)
    for g, k in changed.nonzero().tolist():
        own = vectors.view(40, 2, 2)[:, g]
        assert (own == alone.codebook[g, k]).all(-1).any()


def over_ranks(rank, world):
    """What every rank has after a reseed from its part of the batch, and the gradients of every module, whole, under
    DDP and FSDP2."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh, found = init_device_mesh("cpu", (world,)), {}
    module, x, counts = starved()
    sharded = fully_shard(starved()[0], mesh=mesh)
    half = counts * (torch.arange(2) == rank).long().unsqueeze(-1)  # each rank saw some of the codes
    for kind, m in (("plain", module), ("fsdp", sharded)):
        reseed(m, x.chunk(world)[rank], half, seed=3)
        found[f"reseed {kind}"] = [p.detach().clone() for p in m.parameters()]
    ids = torch.arange(8) * 10
    for name in MODULES:
        mine = ids.chunk(world)[rank], batch().chunk(world)[rank]
        for kind in ("ddp", "fsdp"):
            m = made(name)
            wrapped = nn.parallel.DistributedDataParallel(m) if kind == "ddp" else fully_shard(m, mesh=mesh)
            choice = wrapped(mine[1], seed=1, rows=mine[0])
            loss(choice).backward()
            found[f"{name} {kind}"] = [p.grad for p in m.parameters()]
        m = fully_shard(made(name), mesh=mesh)  # a loss of the law alone: its gradient must find whole parameters
        m(mine[1], seed=1, rows=mine[0]).law.entropy().mean().backward()
        found[f"{name} law"] = [p.grad for p in m.parameters()]
    found |= linear_over_ranks(rank, world, mesh)
    return {name: [whole(t) for t in tensors] for name, tensors in found.items()}


class Head(Codebook):
    """A codebook whose call is the layer and draw in one, in the place of its forward pass."""

    def forward(self, x, **keys):
        return self.linear_draw(x, **keys)


def head():
    torch.manual_seed(0)
    return Head(6, 40, 4, rule=softdraw.StraightThroughGumbel(0.7)).double()


def loss_of_head(draw):
    return (draw.value.sin().sum(-1) - 0.3 * draw.log_prob.squeeze(-1)).mean()


def linear_over_ranks(rank, world, mesh):
    """The index and the gradients of a layer and draw in one under DDP and FSDP2, of this rank's part of the batch."""
    from torch.distributed.fsdp import fully_shard

    found, x, ids = {}, batch().double().chunk(world)[rank], (torch.arange(8) * 10).chunk(world)[rank]
    for kind in ("ddp", "fsdp"):
        m = head()
        wrapped = nn.parallel.DistributedDataParallel(m) if kind == "ddp" else fully_shard(m, mesh=mesh)
        draw = wrapped(x, seed=1, rows=ids)
        loss_of_head(draw).backward()
        found[f"linear_draw {kind}"] = [draw.index, *(p.grad for p in m.parameters())]
    return found


def whole(x):
    """A gradient or a parameter, as far as there is one, from all ranks."""
    return None if x is None else (x.full_tensor() if hasattr(x, "full_tensor") else x).numpy()


@pytest.mark.long
def test_ranks_agree_with_one_process(tmp_path, ranks_results):
    context = mp.get_context("spawn")
    queue = context.Queue()
    workers = [
        context.Process(daemon=True, target=on_rank, args=(rank, 2, str(tmp_path / "store"), queue, over_ranks))
        for rank in range(2)
    ]
    results = dict(ranks_results(workers, queue))
    assert all(isinstance(r, dict) for r in results.values()), results
    module, x, counts = starved()
    reseed(module, x, counts, seed=3)
    for found in results.values():
        for kind in ("plain", "fsdp"):
            here = [p.detach() for p in module.parameters()]
            assert_close([torch.from_numpy(p) for p in found[f"reseed {kind}"]], here)
        for name in MODULES:
            m = made(name)
            choice = m(batch(), seed=1, rows=torch.arange(8) * 10)
            exact = torch.autograd.grad(loss(choice), list(m.parameters()), retain_graph=True, allow_unused=True)
            of_law = torch.autograd.grad(choice.law.entropy().mean(), list(m.parameters()), allow_unused=True)
            for kind, expected in (("ddp", exact), ("fsdp", exact), ("law", of_law)):
                for a, b in zip(found[f"{name} {kind}"], expected, strict=True):
                    if b is not None:
                        assert_close(torch.zeros_like(b) if a is None else torch.from_numpy(a), b)
    m = head()
    draw = m(batch().double(), seed=1, rows=torch.arange(8) * 10)
    exact = torch.autograd.grad(loss_of_head(draw), list(m.parameters()))
    for rank, found in results.items():
        for kind in ("ddp", "fsdp"):
            index, *gradients = map(torch.from_numpy, found[f"linear_draw {kind}"])
            assert torch.equal(index, draw.index.chunk(2)[rank])
            assert_close(gradients, list(exact))


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: Codebook(6, 0, 4), ValueError, ["codes", "at least 1", "0"]),
        (lambda: Codebook(6, 5, 4, 3), ValueError, ["width", "multiple of groups=3", "got 4"]),
        (lambda: Codebook(6.0, 5, 4), TypeError, ["inputs", "6.0"]),
        (lambda: Codebook(6, 5, 4, rule="zgr"), TypeError, ["rule", "pathwise", "'zgr'"]),
        (lambda: Codebook(6, 5, 4, rule=softdraw.LeaveOneOut()), TypeError, ["rule", "softdraw.expect"]),
        (lambda: Codebook(6, 5, 4, rule=softdraw.RelaxedTopK()), TypeError, ["RelaxedTopK", "does not serve"]),
        (lambda: Codebook(6, 5, 4, shared=1), TypeError, ["shared", "bool", "1"]),
        (lambda: Codebook(6, 5, 4)(), TypeError, ["x or logits", "neither"]),
        (lambda: Codebook(6, 5, 4)(batch(), logits=LOGITS), TypeError, ["x or logits", "both"]),
        (lambda: Codebook(None, 5, 4)(batch()), TypeError, ["x", "inputs=None", "pass logits="]),
        (lambda: Codebook(7, 5, 4)(batch()), ValueError, ["x", "(7,)", "(8, 6)"]),
        (lambda: Codebook(6, 5, 4)(logits=LOGITS), ValueError, ["logits", "(1, 5)", "(7, 3, 5)"]),
        (lambda: Codebook(6, 5, 4)(batch().long()), TypeError, ["x", "torch.int64"]),
        (lambda: Codebook(6, 5, 4)(batch(), draw="yes"), TypeError, ["draw", "bool", "'yes'"]),
        (lambda: Codebook(6, 5, 4)(batch(), seed=1.5), TypeError, ["seed", "float"]),
        (lambda: reseed(Codebook(6, 5, 4), batch(), torch.ones(5), seed=0), TypeError, ["counts", "CodeUsage"]),
        (lambda: reseed(Codebook(6, 5, 4), batch(), torch.ones(5).long(), seed=0), ValueError, ["counts", "(1, 5)"]),
        (lambda: reseed(Codebook(5, 5, 4), batch(), torch.ones(1, 5).long(), seed=0), ValueError, ["x", "(5,)"]),
    ],
)
def test_errors(call, error, words):
    with pytest.raises(error) as caught:
        call()
    assert all(word in str(caught.value) for word in words), caught.value


def test_counts_of_a_metric_are_what_reseed_takes():
    module, x, _ = starved()
    usage = CodeUsage(5, groups=2)
    usage.update(module(x, draw=False).index)
    assert torch.equal(reseed(module, x, usage.hard, seed=0), usage.hard == 0)
    assert not dist.is_initialized()
