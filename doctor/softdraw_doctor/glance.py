"""A quick look at a text: could a check find something in it? Most files end here, before LibCST reads them."""

from __future__ import annotations

import ast
import warnings
from collections.abc import Iterator
from functools import cached_property


class Glance:
    """Python's own syntax tree of a text, and the identifiers in it.

    Python's parser takes a few per cent of the time of the whole analysis.
    """

    def __init__(self, tree: ast.Module) -> None:
        self.nodes = list(ast.walk(tree))

    @cached_property
    def names(self) -> frozenset[str]:
        """Every identifier that the code uses; a name imported under an alias counts once the alias is used.

        Neither the ``log`` of ``log.info(...)`` counts nor that of ``math.log(x)``: torch has none of them.
        """
        receivers = {id(n.value) for n in self.nodes if isinstance(n, ast.Attribute)}
        loaded = (n for n in self.nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load))
        used = {n.id for n in loaded if id(n) not in receivers}
        used |= {n.attr for n in self.nodes if isinstance(n, ast.Attribute) and not self._foreign(n)}
        return frozenset(used | {original for alias, original in self._aliases if alias in used} | self._strings)

    @cached_property
    def _strings(self) -> set[str]:
        """What ``getattr`` is given."""
        calls = (n for n in self.nodes if isinstance(n, ast.Call) and len(n.args) > 1)
        words = (n.args[1] for n in calls if isinstance(n.func, ast.Name) and n.func.id == "getattr")
        return {word.value for word in words if isinstance(word, ast.Constant) and isinstance(word.value, str)}

    def _foreign(self, node: ast.expr) -> bool:
        """Whether the attribute is one of a module that ``import`` names and that is not torch."""
        while isinstance(node, ast.Attribute):
            node = node.value
        return isinstance(node, ast.Name) and node.id in self._modules

    @cached_property
    def _modules(self) -> frozenset[str]:
        imports = [a for n in self.nodes if isinstance(n, ast.Import) for a in n.names]
        bound = {True: set(), False: set()}
        for alias in imports:
            top = alias.name.partition(".")[0]
            bound[top == "torch"].add(alias.asname or top)
        others = {a.asname or a.name for n in self.nodes if isinstance(n, ast.ImportFrom) for a in n.names}
        stored = {n.id for n in self.nodes if isinstance(n, ast.Name) and not isinstance(n.ctx, ast.Load)}
        return frozenset(bound[False] - bound[True] - others - stored)

    def called(self, call: ast.expr) -> set[str]:
        """The last part of the name of what is called, and what was imported under that name; empty for no call."""
        if not isinstance(call, ast.Call):
            return set()
        function = call.func
        name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
        return {name, *(original for alias, original in self._aliases if alias == name)}

    @cached_property
    def _aliases(self) -> list[tuple[str, str]]:
        return list(self._imported_as())

    def _imported_as(self) -> Iterator[tuple[str, str]]:
        for node in self.nodes:
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                yield from ((a.asname, a.name.rpartition(".")[2]) for a in node.names if a.asname)


def parsed(text: str) -> ast.Module | None:
    """Python's tree, or None where this Python does not know the syntax; LibCST may know it.

    Raises RecursionError for code so deeply nested that LibCST's parser would overflow the stack and kill the process.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # warnings about the file's escape sequences are its author's concern
            return ast.parse(text)
    except (SyntaxError, ValueError) as error:
        if "too many nested" in str(error):
            raise RecursionError from None
        return None
    except MemoryError:
        raise RecursionError from None
