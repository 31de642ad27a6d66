"""``softdraw doctor``: find loss and sampling code that gives wrong numbers, explain it, rewrite it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TextIO

import typer

from softdraw.errors import InputError, counted

if TYPE_CHECKING:
    from softdraw.doctor.finding import Finding
    from softdraw.doctor.runner import Examined


class Format(str, Enum):
    """How findings are printed."""

    text = "text"
    json = "json"
    github = "github"
    sarif = "sarif"


def doctor(
    paths: Annotated[list[Path] | None, typer.Argument(help="Files and folders to examine.")] = None,
    fix: Annotated[bool, typer.Option("--fix", help="Rewrite what is safe and show the diff.")] = False,
    unsafe_fixes: Annotated[
        bool, typer.Option("--unsafe-fixes", help="With --fix: also make rewrites that change results.")
    ] = False,
    explain: Annotated[
        str | None, typer.Option(help="A code, or an error message, or - for a traceback on standard input.")
    ] = None,
    form: Annotated[Format, typer.Option("--format", help="How findings are printed.")] = Format.text,
    select: Annotated[str, typer.Option(help="Only these codes or prefixes, with commas.")] = "",
    ignore: Annotated[str, typer.Option(help="Not these codes or prefixes, with commas.")] = "",
    jobs: Annotated[int | None, typer.Option(min=1, help="Processes; default: one a core.")] = None,
) -> int:
    """Find loss and sampling code that gives wrong numbers; explain it; rewrite it.

    Exit code 0: nothing found. 1: findings. 2: a file could not be examined (whatever was found elsewhere), or a bad
    argument. With --fix the findings are those that are left.
    """
    try:
        from softdraw.doctor import explain as explaining
        from softdraw.doctor import files, report, runner, settings
    except ImportError as error:
        raise InputError(str(error)) from None
    if explain is not None:
        print(explaining.explain(sys.stdin.read() if explain == "-" else explain))
        return 0
    if not paths:
        raise InputError("no file or folder was given: softdraw doctor src/ examines a folder")
    if unsafe_fixes and not fix:
        raise InputError("--unsafe-fixes does nothing by itself: write --fix --unsafe-fixes")
    configured = settings.load(paths[0] if paths[0].is_dir() else paths[0].parent)
    checks = runner.chosen(_codes(select) or configured.select, (*_codes(ignore), *configured.ignore))
    found = list(files.python_files(paths, configured.exclude))
    results: list[Examined] = []
    try:
        with _progress(len(found)) as advance:
            for result in runner.run(found, checks, fix=fix, unsafe=unsafe_fixes, jobs=jobs, progress=advance):
                results.append(result)
    finally:  # an interrupted run too shows what it has rewritten
        _show(results, report.diff, sys.stdout if form is Format.text else sys.stderr)
    findings = [finding for result in results for finding in result.findings]
    printed = report.FORMATS[form.value](findings)
    if printed:
        print(printed)
    if form is Format.text:
        print(_summary(findings, results), file=sys.stderr)
    return 2 if any(r.error for r in results) else 1 if findings else 0


def _show(results: Sequence[Examined], diff: Callable[[str, str, str], str], stream: TextIO) -> None:
    """The files that could not be examined, and the diffs of those that were rewritten."""
    for result in results:
        if result.error:
            print(f"softdraw: {result.error}", file=sys.stderr)
    for result in results:
        if result.new != result.old:
            print(diff(result.path, result.old, result.new), end="\n\n", file=stream)


def _codes(option: str) -> tuple[str, ...]:
    return tuple(code.strip().upper() for code in option.split(",") if code.strip())


def _summary(findings: Sequence[Finding], results: Sequence[Examined]) -> str:
    fixed, files = sum(r.fixed for r in results), sum(not r.error for r in results)
    safe = sum(f.fixable and not f.unsafe for f in findings)
    unsafe = sum(f.fixable and f.unsafe for f in findings)
    parts = [f"{counted(len(findings), 'finding')} in {counted(files, 'file')}"]
    parts += [f"{fixed} rewritten"] if fixed else []
    parts += [f"{safe} for --fix"] if safe else []
    parts += [f"{unsafe} more for --unsafe-fixes"] if unsafe else []
    return ", ".join(parts)


@contextmanager
def _progress(total: int) -> Iterator[Callable[[], object]]:
    """A bar on standard error while that is a terminal."""
    if not sys.stderr.isatty():
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("examining", total=total)
        yield lambda: bar.advance(task)
