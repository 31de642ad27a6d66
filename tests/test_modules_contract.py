"""What every module that chooses promises (tests/modules.py)."""

import copy
import inspect
import pickle

import pytest
import torch
from torch import nn
from torch.testing import assert_close
from torch.utils.checkpoint import checkpoint

import softdraw
from softdraw.schedules import TauScheduler, linear
from tests.modules import MODULES, batch, loss, made

every_module = pytest.mark.parametrize("name", list(MODULES))
IDS = torch.tensor([900, 3, 77, 2**40, 5, 6, 1, 12])
DRAWING = [name for name in MODULES if name != "switch"]


def same(a, b):
    """Two choices are equal, bit for bit."""
    assert torch.equal(a.index, b.index)
    assert torch.equal(a.value, b.value)
    assert torch.equal(a.theta, b.theta)


def gradients(module, total):
    return torch.autograd.grad(total, list(module.parameters()), allow_unused=True)


@every_module
def test_at_most_eight_arguments_and_one_kind_of_result(name):
    module = made(name)
    assert len(inspect.signature(type(module)).parameters) <= 8
    choice = module(batch(), seed=0)
    assert isinstance(choice, softdraw.nn.Choice)
    assert choice._fields == ("value", "index", "law", "theta")
    assert choice.theta is choice.law.theta
    assert choice.value.dtype == torch.float32
    assert "(" in repr(module)
    assert type(module).__name__ in repr(module)


@every_module
def test_it_draws_in_training_and_decides_in_evaluation(name):
    module, x = made(name), batch(60)
    same(module(x, seed=4), module(x, seed=4))
    if name in DRAWING:
        assert not torch.equal(module(x, seed=4).value, module(x, seed=5).value)
        assert not torch.equal(module(x).value, module(x).value)
    drawn = module(x, seed=4)
    decided = module(x, draw=False)
    module.eval()
    same(module(x, seed=4, rows=3), decided)
    same(module(x, draw=True, seed=4), drawn)


@every_module
def test_ids_key_the_draws(name):
    module, x = made(name), batch()
    whole, part = module(x, seed=2, rows=IDS), module(x[[6, 1, 3]], seed=2, rows=IDS[[6, 1, 3]])
    assert torch.equal(part.index, whole.index[[6, 1, 3]])
    assert_close(part.value, whole.value[[6, 1, 3]])


@every_module
def test_the_batch_may_have_any_shape(name):
    module, x = made(name), batch(12)
    flat, shaped = module(x, seed=2), module(x.view(3, 2, 2, -1), seed=2)
    assert torch.equal(shaped.index.flatten(0, 2), flat.index)
    assert_close(shaped.value.flatten(0, 2), flat.value)
    one = module(x[0], seed=2)
    assert torch.equal(one.index, flat.index[0])
    assert module(x[:0], seed=2).value.shape == (0, *flat.value.shape[1:])


@every_module
def test_logits_take_the_place_of_the_layer(name):
    module, x = made(name), batch()
    if name == "noisy top-k":
        with pytest.raises(TypeError, match=r"x must be given to noisy top-k"):
            module(logits=module(x).theta)
        module.eval()
    theta = module.theta.expand(8, -1) if isinstance(module, softdraw.nn.Gate) else module(x, seed=1).theta
    given = module(logits=theta, seed=1)
    expected = module(torch.ones_like(x) if isinstance(module, softdraw.nn.Gate) else x, seed=1)
    assert torch.equal(given.index, expected.index)
    assert_close(given.value, expected.value)


@every_module
@pytest.mark.parametrize("training", [True, False])
def test_what_is_forbidden_is_never_chosen(name, training):
    module, x = made(name).train(training), batch()
    theta = module(x, seed=1).theta
    mask = torch.rand(theta.shape, generator=torch.Generator().manual_seed(7)) > 0.4
    mask[0], mask[1] = False, True
    choice, free = module(x, mask=mask, seed=1), module(x, seed=1)
    assert (choice.value[0] == 0).all()
    assert_close(choice.value[1], free.value[1])
    if choice.index.dtype == torch.bool:
        allowed = mask if module.groups is None else mask[:, module.groups]
        assert not choice.index[~allowed].any()
    else:
        assert (choice.index[0] == -1).all()
        there = choice.index >= 0
        assert mask.gather(-1, choice.index.clamp_min(0).view(*mask.shape[:-1], -1)).view_as(there)[there].all()
    grads = gradients(module, loss(choice))
    assert all(g is None or g.isfinite().all() for g in grads)


@every_module
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_it_computes_in_float32_and_returns_the_dtype_of_the_input(name, dtype):
    module, x = made(name).to(dtype), batch(dtype=dtype)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    choice, exact = module(x, seed=3), copy.deepcopy(module).to(wide)(x.to(wide), seed=3)
    assert choice.value.dtype == dtype
    assert choice.theta.dtype == choice.law.entropy().dtype == wide
    assert torch.equal(choice.index, exact.index)
    assert_close(choice.value, exact.value.to(dtype))
    assert all(g.isfinite().all() for g in gradients(module, loss(choice)) if g is not None)


@every_module
def test_autocast_changes_nothing(name):
    module, x = made(name), batch()
    plain = module(x, seed=3)
    with torch.autocast("cpu", torch.bfloat16):
        inside = module(x, seed=3)
    same(plain, inside)
    for a, b in zip(gradients(module, loss(plain)), gradients(module, loss(inside)), strict=True):
        assert (a is None and b is None) or torch.equal(a, b)


@every_module
def test_every_parameter_learns(name):
    module = made(name)
    for p, g in zip(module.parameters(), gradients(module, loss(module(batch(64), seed=3))), strict=True):
        assert p.requires_grad
        assert g is not None
        assert g.abs().sum() > 0


@every_module
@pytest.mark.parametrize("seed", [None, 3])
def test_recomputation_changes_no_loss_and_no_count(name, seed):
    def run(recompute):
        module, x = made(name), batch().requires_grad_()
        torch.manual_seed(1)
        usage = softdraw.metrics.CodeUsage(20)
        seen = []

        def forward(x):
            seen.append(1)
            return module(x, seed=seed)

        choice = checkpoint(forward, x, use_reentrant=False) if recompute else forward(x)
        usage.update(choice.index.long())
        total = loss(choice)
        total.backward()
        assert len(seen) == 1 + recompute
        return total.detach(), x.grad, usage.hard, [p.grad for p in module.parameters()]

    assert_close(run(True), run(False), rtol=0, atol=0)


@every_module
def test_copies_draw_and_decide_alike(name):
    module, x = made(name), batch()
    if module.has_tau:
        module.tau.fill_(0.9)
    loaded = made(name, seed=9)
    loaded.load_state_dict(module.state_dict())
    for other in (loaded, copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        same(module(x, seed=1), other(x, seed=1))
        grads = [gradients(m, loss(m(x, seed=1))) for m in (module, other)]
        assert_close(*grads, rtol=0, atol=0)


@every_module
def test_made_on_meta_and_reset(name):
    with torch.device("meta"):
        module = MODULES[name]()
    module.to_empty(device="cpu")
    for p in module.parameters():
        nn.init.constant_(p, torch.nan)
    for part in module.modules():
        part.reset_parameters()
    assert all(p.isfinite().all() for p in module.parameters())
    assert not module.has_tau or module.tau == pytest.approx(MODULES[name]().tau.item())
    fresh = MODULES[name]()
    with torch.no_grad():
        for p, q in zip(fresh.parameters(), module.parameters(), strict=True):
            p.copy_(q)
    same(module(batch(), seed=0), fresh(batch(), seed=0))


@every_module
def test_a_scheduler_finds_tau_where_the_rule_has_one(name):
    module, x = made(name), batch()
    if not module.has_tau:
        assert not hasattr(module, "tau")
        with pytest.raises(ValueError, match="target has no module with an attribute 'tau'"):
            TauScheduler(module, linear(1.0, 0.5, 10))
        return
    scheduler = TauScheduler(module, linear(2.0, 1.0, 10))
    scheduler.step(10)
    assert module.tau == 1.0
    assert "tau=1" in repr(module)
    choice = module(x, seed=1)
    total = loss(choice)
    module.tau = 5.0  # after the forward pass, which keeps its own
    found = gradients(module, total)
    module.tau = 1.0
    assert_close(found, gradients(module, loss(module(x, seed=1))), rtol=0, atol=0)
    module.tau = 5.0
    other = gradients(module, loss(module(x, seed=1)))
    assert not all(torch.equal(a, b) for a, b in zip(found, other, strict=True))


def test_two_modules_under_one_seed_and_under_two():
    """As documented: one seed, one noise; ``fold_in`` makes another of it."""
    theta = torch.zeros(200, 1, 8)
    first, second = softdraw.nn.Codebook(None, 8, 2), softdraw.nn.Codebook(None, 8, 2)
    assert torch.equal(first(logits=theta, seed=1).index, second(logits=theta, seed=1).index)
    a, b = (m(logits=theta, seed=softdraw.fold_in(1, n)).index for m, n in ((first, "first"), (second, "second")))
    assert 0.05 < (a == b).double().mean() < 0.25  # 1 in 8


compiled_here = ["shared codebook with a tau", "subset with a rule"]
compiled_later = [pytest.param(n, marks=pytest.mark.long) for n in MODULES if n not in compiled_here]


@pytest.mark.parametrize("name", compiled_here + compiled_later)
def test_compiled_in_one_graph(name):
    module, x = made(name), batch()
    torch._dynamo.reset()
    compiled = torch.compile(lambda x, seed: module(x, seed=seed), fullgraph=True, backend="aot_eager")
    seed = torch.tensor(5)
    ours, plain = compiled(x, seed), module(x, seed=5)
    assert torch.equal(ours.index, plain.index)
    assert_close(ours.value, plain.value)
    assert_close(ours.law.entropy(), plain.law.entropy())
    assert_close(gradients(module, loss(ours)), gradients(module, loss(plain)))
