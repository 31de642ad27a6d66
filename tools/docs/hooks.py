"""What mkdocs does besides: pages that lie outside docs/ join the site, and links become those of the site.

A page of the repository is read in two places: beside the code, where a link names a file, and on the site, where it
names a page. The files keep the links of the repository; here they become those of the site. A link to code, which no
page shows, becomes its text.
"""

from __future__ import annotations

import posixpath
import re
import subprocess
import sys
from pathlib import Path

from mkdocs.structure.files import File

ROOT = Path(__file__).parents[2]
OUTSIDE = {  # page of the site: file of the repository
    "benchmarks.md": "benchmarks/README.md",
    "changelog.md": "CHANGELOG.md",
    "contributing.md": "CONTRIBUTING.md",
    "kernels.md": "csrc/README.md",
}
WASM = "live/softdraw.wasm"
_PLACES = {place: page for page, place in OUTSIDE.items()} | {"README.md": "index.md"}
_LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^()\s]+)\)")
_FENCED = re.compile(r"^(```.*?^```$)", re.MULTILINE | re.DOTALL)


def on_files(files, config):
    """The pages from outside, and the kernels for the live page, compiled if they are older than their source."""
    for page, place in OUTSIDE.items():
        files.append(File.generated(config, page, content=(ROOT / place).read_text()))
    built = ROOT / "build" / "wasm" / "softdraw.wasm"
    subprocess.run([sys.executable, ROOT / "tools" / "wasm", built], check=True)
    files.append(File.generated(config, WASM, content=built.read_bytes()))
    return files


def on_page_markdown(markdown, page, config, files):
    """The links of a page, as the site has them."""
    uri = page.file.src_uri
    place = OUTSIDE.get(uri, f"docs/{uri}")
    parts = _FENCED.split(markdown)
    return "".join(part if i % 2 else _LINK.sub(lambda m: _link(m, uri, place), part) for i, part in enumerate(parts))


def _link(match: re.Match, page: str, place: str) -> str:
    picture, text, target = match.groups()
    path, _, anchor = target.partition("#")
    if "://" in target or not path or target.startswith("mailto:"):
        return match.group()
    goal = posixpath.normpath(posixpath.join(posixpath.dirname(place), path))
    if goal.startswith("docs/"):
        goal = goal.removeprefix("docs/")
    elif goal in _PLACES:
        goal = _PLACES[goal]
    elif (ROOT / goal).exists():
        return text  # code: the site has no page of it
    link = posixpath.relpath(goal, posixpath.dirname(page) or ".")
    return f"{picture}[{text}]({link}{'#' + anchor if anchor else ''})"
