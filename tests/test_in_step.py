"""Lists that must agree: rules, laws, layers of imports. What is added in one place and forgotten elsewhere fails."""

from __future__ import annotations

import ast
import re
from graphlib import TopologicalSorter
from pathlib import Path

import softdraw
from softdraw import laws, rules
from softdraw.kernels import native
from softdraw.rules.pathwise import Pathwise
from softdraw.rules.score_function import ScoreFunction
from tests.laws import LAWS, logits
from tests.methods import OF_SUBSETS, PATHWISE, SCORE

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "softdraw"

# Each line may import from the lines above it, and within a unit.
LAYERS = [
    ["errors", "checks", "private_torch", "noise"],
    ["tensors"],
    ["arguments", "numerics", "overrides"],
    ["seeds", "schedules", "metrics"],
    ["kernels"],
    ["operators"],
    ["distributed"],
    ["rules", "functional", "keyed"],
    ["indices", "relaxations"],
    ["laws"],
    ["losses", "linear"],
    ["nn"],
    ["verbs"],
    ["integrations"],
    ["diagnosis", "conformance", "reproduce", "recipes", "bench"],
    ["public"],
    ["cli"],
    ["__main__"],
]


def imported(file: Path) -> set[str]:
    """The modules of the package that a file imports when it runs, by their full names."""
    found: set[str] = set()
    for node in ast.walk(without_type_checking(ast.parse(file.read_text()))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: a relative import"
            within = PACKAGE.parent / (node.module or "").replace(".", "/")
            for alias in node.names:
                submodule = (within / alias.name).is_dir() or (within / f"{alias.name}.py").is_file()
                found.add(f"{node.module}.{alias.name}" if submodule else str(node.module))
    return {name for name in found if name.split(".")[0] == "softdraw"}


def without_type_checking(tree: ast.Module) -> ast.Module:
    tree.body = [
        node
        for node in tree.body
        if not (isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING")
    ]
    return tree


def files() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def unit(module: str) -> str:
    return module.split(".")[1] if "." in module else "__init__"


def name_of(file: Path) -> str:
    parts = file.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def test_imports_run_one_way():
    level = {name: i for i, names in enumerate(LAYERS) for name in names}
    units = {unit(name_of(file)) for file in files()} - {"__init__"}
    assert units == set(level), "a unit of the package has no place in the layers, or a layer names none"
    for file in files():
        own = unit(name_of(file))
        for other in imported(file):
            if own == "__init__" or unit(other) in (
                "__init__",
                own,
            ):  # `import softdraw` alone: in commands, for their user
                continue
            assert level[unit(other)] < level[own], f"{file.relative_to(ROOT)} imports {other}, which is not below it"


def test_no_file_imports_itself_through_others():
    names = {name_of(file) for file in files()}
    graph = {name_of(file): {n for n in imported(file) if n in names} - {name_of(file)} for file in files()}
    # A package's own list of names imports its files, which import the package's other files, not the list.
    lists = {name for name in graph if (PACKAGE.parent / name.replace(".", "/")).is_dir()}
    graph = {name: {n for n in others if n not in lists or n == "softdraw.kernels"} for name, others in graph.items()}
    TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle


def test_every_rule_is_public_tested_and_documented():
    listed = set(rules.__all__)
    files_of_rules = {rule.__module__ for rule in (getattr(rules, name) for name in rules.__all__)}
    subclasses = {c.__name__ for kind in (Pathwise, ScoreFunction) for c in kind.__subclasses__()}
    assert {name for name in subclasses if getattr(rules, name, None)} == listed
    assert len(files_of_rules) == len(listed), "a rule a file"
    assert {type(rule).__name__ for rule in PATHWISE + OF_SUBSETS + SCORE} == listed
    assert listed <= set(softdraw.__all__)
    guide = (ROOT / "docs" / "choose-a-rule.md").read_text()
    table = guide[guide.index("## The rules") : guide.index("## Measured")]
    assert set(re.findall(r"^\| `(\w+)\(", table, re.MULTILINE)) == listed
    for rule in PATHWISE + OF_SUBSETS + SCORE:
        own = vars(type(rule))
        if isinstance(rule, Pathwise):
            assert ("vjp" in own) != ("forward" in own), (
                f"{type(rule).__name__} defines vjp, or forward where it is relaxed"
            )


def test_every_law_is_public_and_tested():
    public = set(laws.__all__) - {"Law", "from_torch"}
    assert public <= set(softdraw.__all__)
    tested = {type(make(logits())).__name__ for make in LAWS.values()}
    assert public == tested | {"RelaxedOneHotCategorical"}  # which has tests/test_laws_relaxed.py
    readme = (ROOT / "README.md").read_text()
    assert all(f"`{name}`" in readme for name in public)


def test_every_public_name_is_there_and_in_order():
    assert all(hasattr(softdraw, name) for name in softdraw.__all__)
    assert len(set(softdraw.__all__)) == len(softdraw.__all__)


def test_every_body_has_every_operation():
    """By their source, so that the Triton body is read where Triton is not installed; the library by its own names."""
    for body in (
        ("reference/draws.py", "reference/rules.py"),
        ("cpu.py",),
        ("triton/__init__.py", "triton/indices.py"),
    ):
        parts = [ast.parse((PACKAGE / "kernels" / file).read_text()).body for file in body]
        defined = {node.name for part in parts for node in part if isinstance(node, ast.FunctionDef)}
        assert set(native.OPERATIONS) <= defined, body
    source = (ROOT / "csrc" / "dispatch.cpp").read_text()
    assert set(native.OPERATIONS) <= set(re.findall(r"softdraw_(\w+)\(const Call", source))
    assert set(native.PASSES) == set(re.findall(r"softdraw_(\w+)\(const Pass", source))
    one_by_one = set(re.findall(r"softdraw_(bits_\w+)\(const Bits", source))
    listed = {f"bits_{name}" for name in re.findall(r"^OVER_EACH_BIT\((\w+)\)", source, re.MULTILINE)}
    assert set(native.OVER_BITS) == one_by_one | listed
    assert set(native.OF_SUBSETS) == set(re.findall(r"softdraw_(\w+)\(const Subset", source))


def test_every_body_of_passes_has_every_operation():
    assert passes_of("pass_cpu.py") == set(native.PASSES)
    assert {name for name in native.PASSES if not name.endswith("_backward")} <= passes_of("pass_reference.py")


def test_the_passes_over_bits_have_every_operation():
    assert {f"bits_{name}" for name in passes_of("bits_cpu.py") - {"numbers_kept"}} == set(native.OVER_BITS)


def test_both_bodies_of_tiles_have_every_operation():
    listed = {name.removeprefix("tile_") for name in native.OF_TILES}
    for body in ("tile_cpu.py", "tile_reference.py"):
        tree = ast.parse((PACKAGE / "kernels" / body).read_text())
        assert listed <= {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    source = (ROOT / "csrc" / "dispatch.cpp").read_text()
    assert set(native.OF_TILES) == set(re.findall(r"softdraw_(\w+)\(const TileCall", source))


def passes_of(body: str) -> set[str]:
    """The functions of a file with one of the operations' names, and any that look like the gradient of one."""
    tree = ast.parse((PACKAGE / "kernels" / body).read_text())
    defined = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    return {name for name in defined if not name.startswith("_")}
