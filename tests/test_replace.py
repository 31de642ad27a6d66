"""Our draws in place of F.gumbel_softmax: under every name that a module has for it, until the last block ends."""

import sys
import threading
from types import ModuleType

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.functional import gumbel_softmax as imported
from torch.utils.checkpoint import checkpoint

import softdraw
from softdraw.integrations import replace_gumbel_softmax

STOCK = {"function": F.gumbel_softmax}  # in a dict, which no block looks into
LOGITS = torch.linspace(-2, 2, 12).view(3, 4)


def ours(logits=LOGITS, tau=1.0, hard=False, dim=-1):
    torch.manual_seed(0)
    return softdraw.gumbel_softmax(logits, tau, hard, dim=dim)


def stock(*args, **kwargs):
    torch.manual_seed(0)
    return STOCK["function"](*args, **kwargs)


WAYS = {
    "attribute": lambda x: F.gumbel_softmax(x),
    "imported name": lambda x: imported(x),
    "nn": lambda x: nn.functional.gumbel_softmax(x),
    "keyword": lambda x: F.gumbel_softmax(logits=x),
}


def seeded(way, x=LOGITS):
    torch.manual_seed(0)
    return way(x)


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS.keys())
def test_every_way_to_the_function_draws_with_our_noise(way):
    with replace_gumbel_softmax():
        inside = seeded(way)
    assert torch.equal(inside, ours())
    assert torch.equal(seeded(way), stock(LOGITS))
    assert not torch.equal(inside, stock(LOGITS))


@pytest.mark.parametrize("call", [((0.5, True), {}), ((), {"tau": 0.3, "dim": 0}), ((2.0, False, 1e-10, 0), {})])
def test_the_arguments_arrive(call):
    args, options = call
    with replace_gumbel_softmax():
        torch.manual_seed(0)
        got = F.gumbel_softmax(LOGITS, *args, **options)
    tau, hard = (*args, *(options.get("tau", 1.0), False)[len(args) :])[:2]
    assert torch.equal(got, ours(tau=tau, hard=hard, dim=options.get("dim", 0 if len(args) > 3 else -1)))


def test_a_gradient_is_ours():
    x = LOGITS.clone().requires_grad_()
    with replace_gumbel_softmax():
        torch.manual_seed(0)
        (got,) = torch.autograd.grad(F.gumbel_softmax(x, 0.7, hard=True)[:, 0].sum(), x)
    (wanted,) = torch.autograd.grad(ours(x, 0.7, True)[:, 0].sum(), x)
    assert torch.equal(got, wanted)


def test_it_ends_after_an_exception_and_blocks_nest():
    with pytest.raises(ZeroDivisionError), replace_gumbel_softmax():
        raise ZeroDivisionError
    assert F.gumbel_softmax is STOCK["function"]
    assert torch.equal(seeded(imported), stock(LOGITS))
    with replace_gumbel_softmax():
        with replace_gumbel_softmax():
            assert torch.equal(seeded(imported), ours())
        assert torch.equal(seeded(imported), ours())
    assert torch.equal(seeded(imported), stock(LOGITS))


def test_it_decorates():
    @replace_gumbel_softmax()
    def drawn():
        return seeded(imported)

    assert torch.equal(drawn(), ours())
    assert torch.equal(drawn(), ours())


def in_thread(work):
    results = []
    thread = threading.Thread(target=lambda: results.append(work()))
    thread.start()
    thread.join()
    return results[0]


def test_it_holds_in_all_threads():
    with replace_gumbel_softmax():
        assert torch.equal(in_thread(lambda: seeded(imported)), ours())
    assert torch.equal(in_thread(lambda: seeded(imported)), stock(LOGITS))


def test_a_default_argument_keeps_the_function_of_torch():
    def draw(x, function=F.gumbel_softmax):
        return function(x)

    with replace_gumbel_softmax():
        assert torch.equal(seeded(draw), stock(LOGITS))


def test_a_checkpointed_pass_draws_the_same_again():
    x, seen = LOGITS.clone().requires_grad_(), []

    def run(z):
        seen.append(imported(z))
        return seen[-1].square()

    with replace_gumbel_softmax():
        torch.manual_seed(0)
        checkpoint(run, x, use_reentrant=False).sum().backward()
    assert len(seen) == 2
    assert torch.equal(seen[0], seen[1])
    assert torch.equal(seen[0], ours())


COPY = """
import torch
def gumbel_softmax(logits, tau=1, hard=False, dim=-1):
    return logits * 0 - 7
class Net(torch.nn.Module):
    def forward(self, x):
        return gumbel_softmax(x, dim=0)
class Derived(Net):
    pass
"""


@pytest.fixture
def copies(monkeypatch):
    """A file with a copy of the function, as GroupViT of transformers has one."""
    file = ModuleType("a_model_with_a_copy")
    monkeypatch.setitem(sys.modules, file.__name__, file)

    def made(source=COPY):
        exec(source, vars(file))
        return file

    return made


def test_a_copy_in_the_file_of_a_model_is_replaced_and_restored(copies):
    file = copies()
    own, net = file.gumbel_softmax, nn.Sequential(nn.Identity(), file.Derived())
    stays = torch.full_like(LOGITS, -7)
    with replace_gumbel_softmax():
        assert torch.equal(seeded(net), stays)
    with replace_gumbel_softmax(net):
        assert torch.equal(seeded(net), ours(dim=0))
        with replace_gumbel_softmax(net):
            assert torch.equal(seeded(net), ours(dim=0))
        assert torch.equal(seeded(net), ours(dim=0))
        assert torch.equal(in_thread(lambda: seeded(net)), ours(dim=0))
    assert file.gumbel_softmax is own
    assert torch.equal(seeded(net), stays)
    with pytest.raises(ZeroDivisionError), replace_gumbel_softmax(net):
        raise ZeroDivisionError
    assert file.gumbel_softmax is own
    assert torch.equal(seeded(net), stays)


def test_blocks_of_two_threads_on_one_copy_end_in_any_order(copies):
    file = copies()
    own, net, entered, leave = file.gumbel_softmax, file.Net(), threading.Event(), threading.Event()

    def hold():
        with replace_gumbel_softmax(net):
            entered.set()
            leave.wait(20)

    thread = threading.Thread(target=hold)
    with replace_gumbel_softmax(net):
        thread.start()
        assert entered.wait(20)
    assert torch.equal(seeded(net), ours(dim=0))  # the other block is still open
    leave.set()
    thread.join()
    assert file.gumbel_softmax is own
    assert F.gumbel_softmax is STOCK["function"]


def test_a_file_that_is_imported_inside_of_the_block_gets_its_function_back(copies):
    with replace_gumbel_softmax():
        file = copies("from torch.nn.functional import gumbel_softmax as relaxed")
        assert torch.equal(seeded(file.relaxed), ours())
    assert file.relaxed is STOCK["function"]


def test_a_copy_keeps_its_defaults(copies):
    file = copies(
        "import torch\ndef gumbel_softmax(logits, tau=0.3, hard=True, dim=0): pass\nclass N(torch.nn.Module): pass"
    )
    with replace_gumbel_softmax(file.N()):
        assert torch.equal(seeded(file.gumbel_softmax), ours(tau=0.3, hard=True, dim=0))


def test_a_compiled_model_follows_the_block():
    net = torch.compile(lambda x: F.gumbel_softmax(x * 2.0, hard=True) * 3.0, backend="eager")
    before = seeded(net)
    with replace_gumbel_softmax():
        assert torch.equal(seeded(net), ours(LOGITS * 2, hard=True) * 3)
    assert torch.equal(seeded(net), before)


def test_what_is_refused(copies):
    with pytest.raises(TypeError, match=r"model must be a torch.nn.Module or None, got"), replace_gumbel_softmax(3):
        pass
    file = copies("import torch\ndef gumbel_softmax(x, heat): pass\nclass Net(torch.nn.Module): pass")
    with (
        pytest.raises(TypeError, match=r"a_model_with_a_copy.gumbel_softmax\(x, heat\): leave model out"),
        replace_gumbel_softmax(file.Net()),
    ):
        pass
    assert F.gumbel_softmax is STOCK["function"]
