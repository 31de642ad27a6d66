"""Docstrings as the site shows them: mathematics as MathML, names in Sphinx's roles as links to their entries."""

from __future__ import annotations

import re

from griffe import Extension, Module, Object
from latex2mathml.converter import convert

_BLOCK = re.compile(r"^( *)\.\. math:: *((?:.*\n)(?:(?:\1 +\S.*)?\n)*)", re.MULTILINE)
_INLINE = re.compile(r":math:`([^`]+)`", re.DOTALL)
_POSITIVE = re.compile(r"^( *\w+: )>", re.MULTILINE)  # "tau: > 0" is no quotation
_EXAMPLE = re.compile(r"^( *)Example:$", re.MULTILINE)  # the parser knows only the plural
# "A Report: print it" names no type.
_RETURNS = re.compile(r"^( *Returns:\n)( +[^\n`]*(?::class:`[^`\n]*`)?: )", re.MULTILINE)
_RAISES = re.compile(r"^( *)Raises:\n((?:\1 +.*\n)+)", re.MULTILINE)
_NEXT_ERROR = re.compile(r"\. ((?:\w+Error(?:, )?)+: )")
_CONTINUED = re.compile(r"^(?! *(?:\w+Error(?:, )?)+:)", re.MULTILINE)  # a line that names no error
_ROLE = re.compile(r":(?:func|class):`~?([\w.]+)`")


class Docstrings(Extension):
    """Rewrites each docstring once, when its object has been read."""

    def on_object(self, *, obj: Object, **kwargs) -> None:
        if obj.docstring is not None:
            module = obj if isinstance(obj, Module) else obj.module
            obj.docstring.value = rewritten(obj.docstring.value, module)


def rewritten(text: str, module: Object) -> str:
    """The docstring in Markdown."""
    text = _BLOCK.sub(lambda m: f"{m[1]}{_block(m[2])}\n\n", text + "\n")
    text = _INLINE.sub(lambda m: f"<span>{_formula(m[1])}</span>", text)  # a line that begins with <math> is a block
    text = _RAISES.sub(_raises, text)
    text = _RETURNS.sub(lambda m: m[1] + m[2].replace(": ", "&#58; ", 1), text)
    text = _EXAMPLE.sub(r"\1Examples:", text)
    text = _POSITIVE.sub(r"\1\>", text)
    return _ROLE.sub(lambda m: _reference(m[1], module), text).rstrip()


def _raises(match: re.Match) -> str:
    """A line for each kind of error, as the parser wants them."""
    indent, body = match.groups()
    lines = _NEXT_ERROR.sub(rf".\n{indent}    \1", body.rstrip("\n"))
    return f"{indent}Raises:\n" + _CONTINUED.sub("    ", lines) + "\n"


def _block(latex: str) -> str:
    return _formula(latex, "block")


def _formula(latex: str, display: str = "inline") -> str:
    return convert(" ".join(latex.split()).replace(r"\arg\max", r"\mathrm{argmax}"), display=display)


def _reference(name: str, module: Object) -> str:
    """A link to the entry of a public name, which is listed where the package lists it."""
    short = name.rpartition(".")[2]
    if name.startswith("softdraw."):
        return f"[`{short}`][{name}]"
    package = module.path.split(".")[:2]
    inside = len(package) == 2 and package[1] in ("losses", "metrics", "nn", "schedules")
    return f"[`{short}`][{'.'.join(package) if inside else 'softdraw'}.{short}]"
