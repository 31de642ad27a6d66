"""The private names of torch: they stand in one file, and a torch without one of them draws the same."""

from __future__ import annotations

import ast
import operator
import re
from pathlib import Path

import pytest
import torch
from processes import run

import softdraw
from softdraw import private_torch

PACKAGE = Path(softdraw.__file__).parent
TABLE = Path(private_torch.__file__)
NAMES = [*re.findall(r'_private\("([^"]+)"', TABLE.read_text(encoding="utf-8")), "autograd.forward_ad._current_level"]
# What torch.distributions.Distribution gives to subclasses, and a module's own tensors.
PROTOCOLS = {"_validate_args", "_validate_sample", "_buffers", "_parameters"}


def private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__")


def foreign(tree: ast.AST, own: set[str]) -> list[str]:
    """Private names that a file takes from elsewhere: imported, or attributes that softdraw itself defines nowhere."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            module = getattr(node, "module", None) or ""
            paths = [f"{module}.{alias.name}" for alias in node.names]
            found += [p for p in paths if not p.startswith("softdraw") and any(map(private, p.split(".")))]
        elif isinstance(node, ast.Attribute) and private(node.attr) and node.attr not in own:
            found.append(ast.unparse(node))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith("torch._"):
            found.append(node.value)
    return found


def defined(tree: ast.AST) -> set[str]:
    """The names that a file defines: functions, classes, variables, fields, and attributes of self or a context."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            found.add(node.attr)
    return found


def test_no_other_file_uses_a_private_name():
    trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in sorted(PACKAGE.rglob("*.py"))}
    own = set().union(*map(defined, trees.values())) | PROTOCOLS | {"_replace", "_make", "_asdict"}
    used = {str(path.relative_to(PACKAGE)): foreign(tree, own) for path, tree in trees.items()}
    assert used.pop(TABLE.name) == ["forward_ad._current_level"] * 2  # _backward_cls is looked up by getattr
    assert {path: names for path, names in used.items() if names} == {}


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("from torch._C import _has_storage", ["torch._C._has_storage"]),
        ("import torch._dynamo", [".torch._dynamo"]),
        ("torch._assert_async(x)", ["torch._assert_async"]),
        ("f = function._backward_cls", ["function._backward_cls"]),
        ("from softdraw.arguments import _broadcasts; self._form; self._form = 1", []),
    ],
)
def test_the_search_finds_private_names(source, names):
    tree = ast.parse(source)
    assert foreign(tree, defined(tree)) == names


@pytest.mark.parametrize("name", NAMES)
def test_this_torch_has_every_name(name):
    operator.attrgetter(name)(torch)


DRAWS = """
import operator, torch

hidden = {hidden}
held = {{}}
for name in hidden:
    owner, _, leaf = name.rpartition(".")
    owner = operator.attrgetter(owner)(torch) if owner else torch
    held[owner, leaf] = getattr(owner, leaf)
    delattr(owner, leaf)
import softdraw
from softdraw import losses, private_torch
for (owner, leaf), value in held.items():
    setattr(owner, leaf, value)
ours = [f for f in vars(private_torch).values() if getattr(f, "__module__", "") == private_torch.__name__]
public = [n for n, f in vars(private_torch).items() if not n.startswith("_") and f in ours]
table = [n for n in public if n not in ("quick_apply", "is_plain", "constant_of_graphs")]
functions = {{*hidden}} - {{"_C._FunctionBase"}} | {{"autograd.forward_ad._current_level"}}
assert len(table) == len(functions), table

from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import forward_ad
from torch.func import grad, jacrev, vmap
from torch.utils._python_dispatch import TorchDispatchMode


class Recorder(TorchDispatchMode):  # keeps the names of the operations that a mode is shown
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        seen.append(str(func))
        return func(*args, **(kwargs or {{}}))


x = torch.linspace(-1, 2, 30, dtype=torch.float64).reshape(6, 5)
w = x.cos()
out = []
leaf = x.clone().requires_grad_()
tau = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
torch.manual_seed(0)
for hard in (False, True):
    draw = lambda x, tau=0.7, **seed: softdraw.gumbel_softmax(x, tau, hard, **seed)
    out += [draw(x), draw(x, seed=3), draw(leaf)]
    out += torch.autograd.grad((draw(leaf, seed=3) * w).sum(), leaf)
    out += torch.autograd.grad((draw(leaf, tau, seed=3) * w).sum(), (leaf, tau))
    (first,) = torch.autograd.grad((draw(leaf, seed=3) * w).sum(), leaf, create_graph=True)
    out += torch.autograd.grad((first * w).sum(), leaf)
    out += torch.autograd.grad(draw(leaf, seed=3), leaf, torch.stack([w, w.sin()]), is_grads_batched=True)
    out += [vmap(lambda x: draw(x, seed=4))(x), vmap(lambda s: draw(x, seed=s))(torch.arange(3))]
    out += [vmap(draw, randomness="different")(x), vmap(draw, randomness="same")(x)]
    out += [vmap(grad(lambda x: (draw(x, seed=4) * w[0]).sum()))(x), jacrev(lambda x: draw(x, seed=4))(x[0])]
    out += [torch.func.vjp(lambda x: draw(x, seed=3), x)[1](w)[0]]
    compiled = torch.compile(lambda x, seed: draw(x, seed=seed), backend="aot_eager", fullgraph=True)
    for seed in (3, 4, 5):
        y = compiled(leaf, seed)
        out += [y, *torch.autograd.grad((y * w).sum(), leaf)]
    with FakeTensorMode():
        fake = torch.randn(3, 4, requires_grad=True)
        draw(fake, seed=0).sum().backward()
        assert fake.grad.shape == (3, 4)
    seen = []
    with Recorder():
        out += [draw(x, seed=3)]
    assert sum("softdraw" in name for name in seen) == 1, seen
    with forward_ad.dual_level():
        try:
            draw(forward_ad.make_dual(x, w), seed=3)
            raise SystemExit("a draw has no tangent, and dropped that of its logits")
        except (RuntimeError, NotImplementedError):
            pass
out += [softdraw.gumbel_max(x, sample_shape=(2,)), softdraw.gumbel_noise((2, 3), seed=1)]
index = lambda x: x.gather(-1, softdraw.gumbel_max(x, seed=0).unsqueeze(-1))
out += torch.func.jvp(index, (x,), (2 * x,))
nll = lambda x, p: losses.bernoulli_nll(x, (x > 0).double(), pos_weight=p)
out += [nll(x, w + 1), torch.compile(nll, backend="aot_eager", fullgraph=True)(x, w + 1)]
traced = torch.jit.trace(lambda x: softdraw.gumbel_softmax(x, 0.7, seed=3), (w,))
out += [traced(x)]
torch.save([t.detach() for t in out], {path!r})
"""


@pytest.fixture(scope="session")
def usual(tmp_path_factory):
    """The draws and gradients of a torch that has all names."""
    return drawn([], tmp_path_factory.mktemp("usual") / "draws.pt")


def drawn(hidden, path):
    run(DRAWS.format(hidden=hidden, path=str(path)))
    return torch.load(path)


# Without it every draw is an operator, which asks for no other name.
MODES = ["_C._len_torch_dispatch_stack"]


@pytest.mark.parametrize(
    "hidden", [MODES, [name for name in NAMES if name not in MODES], NAMES], ids=["modes", "others", "all"]
)
def test_a_torch_without_the_names_draws_the_same(hidden, usual, tmp_path):
    found = drawn(hidden, tmp_path / "draws.pt")
    torch.testing.assert_close(found, usual, rtol=1e-12, atol=1e-12)
    assert len(found) == 51
