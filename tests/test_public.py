"""The public names: loaded when one is used, and never by a command line that does without."""

from __future__ import annotations

import pkgutil
import resource
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from processes import run

import softdraw
from softdraw import public

COMMANDS = ("train", "compare", "diagnose", "reproduce", "doctor", "bench", "info", "sample")
LINE = """
import sys
from softdraw.__main__ import main
sys.argv = ["softdraw", *{arguments!r}]
try:
    main()
except SystemExit as ended:
    print(ended.code or 0)
print(sorted({{"torch", "numpy", "rich", "matplotlib"}} & set(sys.modules)))
"""


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], [], *([c, "--help"] for c in COMMANDS)], ids=str)
def test_a_line_that_draws_nothing_loads_no_torch(arguments):
    assert run(LINE.format(arguments=arguments)).splitlines()[-2:] == ["0", "[]"]


def test_the_doctor_loads_no_torch(tmp_path):
    (tmp_path / "model.py").write_text(
        "import torch\n\n\ndef loss(x, y):\n    return torch.nn.BCELoss()(x.sigmoid(), y)\n"
    )
    *said, loaded = run(LINE.format(arguments=["doctor", str(tmp_path / "model.py")])).splitlines()
    assert any("SD101" in line for line in said)
    assert "torch" not in loaded


def test_help_takes_less_than_0_3_seconds():
    """Of the processor, at best: on a busy machine the wall clock also counts what others do."""

    def taken() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-m", "softdraw", "--help"], check=True, stdout=subprocess.DEVNULL)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    assert min(taken() for _ in range(3)) < 0.3


def test_importing_softdraw_loads_nothing_until_a_name_is_used():
    code = """
import sys, softdraw
print([name for name in sys.modules if name == "torch" or name.startswith("softdraw")], softdraw.__version__)
print(softdraw.gumbel_softmax.__module__, "torch" in sys.modules)
"""
    first, second = run(code).splitlines()
    assert first == f"['softdraw'] {softdraw.__version__}"
    assert second == "softdraw.functional True"


@pytest.mark.parametrize(
    "code",
    [
        "from softdraw import *; print(draw, losses.__name__, ZGR)",
        "from softdraw import draw, losses, ZGR; print(draw, losses.__name__, ZGR)",
        "import softdraw.verbs, softdraw as s; print(s.draw, s.losses.__name__, s.ZGR)",
        "from softdraw.rules import ZGR; import softdraw as s; print(s.draw, s.losses.__name__, ZGR)",
        "import softdraw as s; dir(s); print(*(vars(s)[name] for name in ('draw',)), s.losses.__name__, s.ZGR)",
    ],
)
def test_every_way_to_a_name_gives_the_same(code):
    said = run(code).split()
    assert said[:2] == ["<function", "draw"]
    assert said[-3:] == ["softdraw.losses", "<class", "'softdraw.rules.zgr.ZGR'>"]


def test_the_list_of_names_is_what_the_module_offers():
    names = [name for name in vars(public) if not name.startswith("_")]
    assert softdraw.__all__ == sorted(names)
    assert set(names) | {"__version__"} <= set(dir(softdraw))
    assert all(getattr(softdraw, name) is getattr(public, name) for name in names)
    lines = [line.split()[-1] for line in Path(public.__file__).read_text().splitlines() if line.startswith("from")]
    assert sorted(lines) == softdraw.__all__, "a name is listed once"


def test_no_name_hides_behind_a_file():
    """An import of softdraw/x.py would put that module in the place of a public x."""
    files = {module.name for module in pkgutil.iter_modules(softdraw.__path__)}
    hidden = {name for name in softdraw.__all__ if not isinstance(getattr(softdraw, name), ModuleType)} & files
    assert not hidden


def test_an_unknown_name_is_an_error_that_names_a_known_one():
    with pytest.raises(AttributeError, match="module 'softdraw' has no attribute 'gumble_softmax'") as caught:
        softdraw.gumble_softmax  # noqa: B018
    assert (caught.value.name, caught.value.obj) == ("gumble_softmax", softdraw)  # Python looks for close names there
    with pytest.raises(ImportError, match="cannot import name 'gumble_softmax'"):
        from softdraw import gumble_softmax  # noqa: F401


def test_no_module_keeps_a_tensor_that_was_made_at_its_import():
    """The first use may be in inference mode, a fake tensor mode or torch.func: their tensors are of no use later."""
    code = """
import sys, torch, softdraw.public
print([f"{m}.{n}" for m in list(sys.modules) if m.startswith("softdraw")
       for n, value in vars(sys.modules[m]).items() if isinstance(value, torch.Tensor)])
"""
    assert run(code).strip() == "[]"


FIRST_USES = {
    "fake": "with FakeTensorMode() as mode: softdraw.gumbel_softmax(mode.from_tensor(x), seed=0)",
    "inference on meta": "with torch.inference_mode(), torch.device('meta'): softdraw.gumbel_softmax(x, seed=0)",
    "grad": "torch.func.grad(lambda x: softdraw.gumbel_softmax(x, seed=0)[0, 0])(x)",
    "compile": "torch.compile(lambda x: softdraw.gumbel_softmax(x, seed=0), fullgraph=True, backend='eager')(x)",
}


@pytest.mark.parametrize("first", FIRST_USES.values(), ids=FIRST_USES)
def test_the_first_use_may_be_anywhere(first):
    code = f"""
import softdraw, torch
from torch._subclasses.fake_tensor import FakeTensorMode
x = torch.linspace(-1, 1, 6).view(2, 3)
{first}
x.requires_grad_()
softdraw.gumbel_softmax(x, seed=0)[0, 0].backward()
print(x.grad.tolist())
"""
    x = torch.linspace(-1, 1, 6).view(2, 3).requires_grad_()
    softdraw.gumbel_softmax(x, seed=0)[0, 0].backward()
    assert run(code).strip() == str(x.grad.tolist())
