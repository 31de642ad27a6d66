"""``softdraw-doctor``: find loss and sampling code that gives wrong numbers, explain it, rewrite it."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TextIO

import typer

from softdraw_doctor import __version__
from softdraw_doctor.errors import InputError

if TYPE_CHECKING:
    from softdraw_doctor.finding import Finding
    from softdraw_doctor.runner import Examined
    from softdraw_doctor.settings import Settings

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


class Format(str, Enum):
    """How findings are printed."""

    text = "text"
    json = "json"
    github = "github"
    sarif = "sarif"


def _print_version(wanted: bool) -> None:
    if wanted:
        print(__version__)
        raise typer.Exit


@app.command()
def doctor(
    paths: Annotated[list[str] | None, typer.Argument(help="Files and folders; - is standard input.")] = None,
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
    stdin_filename: Annotated[str, typer.Option(help="The name of what - reads; .ipynb is a notebook.")] = "-",
    no_cache: Annotated[bool, typer.Option("--no-cache", help="Analyse unchanged files again.")] = False,
    version: Annotated[bool, typer.Option("--version", callback=_print_version, help="Print it and exit.")] = False,
) -> int:
    """Find loss and sampling code that gives wrong numbers; explain it; rewrite it.

    Exit code 0: nothing found. 1: findings. 2: a file could not be examined (whatever was found elsewhere), or a bad
    argument. With --fix the findings are those that are left. `softdraw-doctor lsp` is a language server for editors
    (a folder of that name is ./lsp).
    """
    if explain is not None:
        from softdraw_doctor.explain import explain as explained

        print(explained(sys.stdin.read() if explain == "-" else explain))
        return 0
    if not paths:
        raise InputError("no file or folder was given: softdraw-doctor src/ examines a folder")
    if unsafe_fixes and not fix:
        raise InputError("--unsafe-fixes does nothing by itself: write --fix --unsafe-fixes")
    from softdraw_doctor import cache, runner, settings

    first = Path(stdin_filename if paths[0] == "-" else paths[0])
    configured = settings.load(first if first.is_dir() else first.parent)
    checks = runner.chosen(_codes(select) or configured.select, (*_codes(ignore), *configured.ignore))
    kept = None if no_cache else cache.folder()
    if "-" in paths:
        if len(paths) > 1:
            raise InputError("- is standard input, and is given alone")
        codes = tuple(check.code for check in checks)
        return _standard_input(runner.Work(codes, cache.Cache(kept, codes), fix, unsafe_fixes), stdin_filename, form)
    return _files(paths, configured, form, checks=checks, fix=fix, unsafe=unsafe_fixes, jobs=jobs, cache=kept)


def _files(paths: Sequence[str], configured: Settings, form: Format, **options) -> int:
    from softdraw_doctor import files, runner

    found = list(files.source_files(map(Path, paths), configured.exclude))
    results: list[Examined] = []
    try:
        with _progress(len(found)) as advance:
            for result in runner.run(found, progress=advance, **options):
                results.append(result)
    finally:  # an interrupted run too shows what it has rewritten
        _show(results, sys.stdout if form is Format.text else sys.stderr)
    counted = all(os.path.lexists(path) for path in paths)
    return _reported(results, form, sys.stdout, counted=counted)


def _standard_input(work: object, path: str, form: Format) -> int:
    """With --fix the repaired text goes to standard output, and what is left to standard error."""
    from softdraw_doctor import files, runner

    assert isinstance(work, runner.Work)
    try:
        text, encoding = files.decoded(sys.stdin.buffer.read(), path)
    except files.UnreadableError as error:
        return _reported([runner.Examined(path, error=str(error))], form, sys.stderr)
    result = work.text(text, path)
    _show([result] if result.error else [], sys.stderr)
    if not work.fix:
        return _reported([result], form, sys.stdout)
    sys.stdout.flush()
    sys.stdout.buffer.write((text if result.error else result.new).encode(encoding))
    return _reported([result], form, sys.stderr)


def _reported(results: Sequence[Examined], form: Format, stream: TextIO, counted: bool = True) -> int:
    """Print the findings and their number; returns the exit code."""
    from softdraw_doctor import report

    findings = [finding for result in results for finding in result.findings]
    if printed := report.FORMATS[form.value](findings):
        print(printed, file=stream)
    if form is Format.text and counted:
        print(_summary(findings, results), file=sys.stderr)
    return 2 if any(r.error for r in results) else 1 if findings else 0


def _show(results: Sequence[Examined], stream: TextIO) -> None:
    """The files that could not be examined, and the diffs of those that were rewritten."""
    from softdraw_doctor.report import diff

    for result in results:
        if result.error:
            print(f"softdraw-doctor: {result.error}", file=sys.stderr)
    for result in results:
        if result.new != result.old:
            print(diff(result.path, result.old, result.new), end="\n\n", file=stream)


def _codes(option: str) -> tuple[str, ...]:
    return tuple(code.strip().upper() for code in option.split(",") if code.strip())


def _summary(findings: Sequence[Finding], results: Sequence[Examined]) -> str:
    fixed, skipped = sum(r.fixed for r in results), sum(r.skipped for r in results)
    files = sum(not (r.error or r.skipped) for r in results)
    safe = sum(f.fixable and not f.unsafe for f in findings)
    unsafe = sum(f.fixable and f.unsafe for f in findings)
    parts = [f"{_number(len(findings), 'finding')} in {_number(files, 'file')}"]
    parts += [f"{skipped} more without torch not examined"] if skipped else []
    parts += [f"{fixed} rewritten"] if fixed else []
    parts += [f"{safe} for --fix"] if safe else []
    parts += [f"{unsafe} more for --unsafe-fixes"] if unsafe else []
    return ", ".join(parts)


def _number(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


@contextmanager
def _progress(total: int) -> Iterator:
    """A bar on standard error while that is a terminal."""
    if not sys.stderr.isatty():
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("examining", total=total)
        yield lambda: bar.advance(task)


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command line; returns its exit code. A bad input ends in one line on standard error and code 2."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a path may hold what the terminal cannot show
    try:
        if arguments == ["lsp"]:
            return _language_server()
        code = app(args=arguments, prog_name="softdraw-doctor", standalone_mode=False)
        sys.stdout.flush()  # here, where an output that cannot be written is one line, and not when Python ends
    except InputError as error:
        return _refused(str(error))
    except (typer.Abort, KeyboardInterrupt):
        return 130
    except OSError as error:
        with contextlib.suppress(io.UnsupportedOperation):  # or Python tries once more when it ends, and complains
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        gone = isinstance(error, BrokenPipeError)  # the reader, as in softdraw-doctor ... | head
        return 1 if gone else _refused(f"the output cannot be written ({error.strerror})")
    except Exception as error:
        if not hasattr(error, "format_message"):  # every version of typer's (and click's) usage errors has it
            raise
        message = error.format_message()  # pyright: ignore[reportAttributeAccessIssue]
        return _refused(f"{message.rstrip('.')}: see softdraw-doctor --help")
    return code if isinstance(code, int) else 0


def _language_server() -> int:
    try:
        from softdraw_doctor.lsp import serve
    except ModuleNotFoundError as error:
        raise InputError(f"the language server needs {error.name}: pip install 'softdraw-doctor[lsp]'") from None
    serve()
    return 0


def _refused(message: str) -> int:
    print("softdraw-doctor: " + " ".join(message.split()), file=sys.stderr)
    return 2
