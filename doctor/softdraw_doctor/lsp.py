"""``softdraw-doctor lsp``: the findings in an editor, by the Language Server Protocol on standard input and output."""

from __future__ import annotations

import asyncio
import difflib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import libcst as cst
from lsprotocol import types as lsp  # pyright: ignore[reportMissingImports]
from pygls.lsp.server import LanguageServer  # pyright: ignore[reportMissingImports]
from pygls.uris import to_fs_path  # pyright: ignore[reportMissingImports]

from softdraw_doctor import __version__, files, settings
from softdraw_doctor.checks import CHECKS
from softdraw_doctor.engine import examine, repair, rewritten
from softdraw_doctor.errors import InputError
from softdraw_doctor.finding import Check, Finding
from softdraw_doctor.runner import chosen
from softdraw_doctor.source import LINE_END

_PAGE = "https://github.com/softdraw/softdraw/blob/main/docs/doctor.md#the-checks"
_PAUSE = 0.3  # seconds without a key before a changed text is examined
_EXPLANATIONS = {check.code: f"{check.code} {type(check).__name__}\n\n{check.explanation}" for check in CHECKS}
_FIX_ALL = f"{lsp.CodeActionKind.SourceFixAll.value}.softdraw-doctor"


@dataclass(frozen=True)
class Examined:
    """A text that an editor has open, and what was found in it."""

    text: str
    findings: tuple[Finding, ...] = ()

    @property
    def lines(self) -> list[str]:
        return LINE_END.split(self.text)


@dataclass
class Server:
    """What the protocol's requests are answered from."""

    protocol: LanguageServer
    known: dict[str, Examined] = field(default_factory=dict)

    def examine(self, uri: str) -> None:
        """Publish what is in the text; what stands in a text that does not parse, as while typing, stays published."""
        document = self.protocol.workspace.get_text_document(uri)
        path = Path(to_fs_path(uri) or "untitled.py")
        try:
            found = examine(document.source, str(path), self.checks(path))
        except (cst.ParserSyntaxError, RecursionError):
            return
        except InputError as error:  # a pyproject.toml that is not as it should be
            self.protocol.window_log_message(lsp.LogMessageParams(lsp.MessageType.Error, str(error)))
            return
        self.known[uri] = Examined(document.source, tuple(found))
        self.publish(uri, document.version)

    def checks(self, path: Path) -> list[Check]:
        """The checks that the nearest pyproject.toml asks for; none where it excludes the file."""
        configured = settings.load(path.parent)
        if files.excluded(path, configured.exclude):
            return []
        return chosen(configured.select, configured.ignore)

    def publish(self, uri: str, version: int | None) -> None:
        known = self.known.get(uri, Examined(""))
        found = [self.diagnostic(known, finding) for finding in known.findings]
        self.protocol.text_document_publish_diagnostics(lsp.PublishDiagnosticsParams(uri, found, version))

    def diagnostic(self, known: Examined, finding: Finding) -> lsp.Diagnostic:
        likely = "likely: " if finding.likely else ""
        reason = f" ({finding.reason})" if finding.reason else ""
        return lsp.Diagnostic(
            range=self.range(known, finding),
            message=f"{likely}{finding.message}{reason}",
            severity=lsp.DiagnosticSeverity.Information if finding.likely else lsp.DiagnosticSeverity.Warning,
            code=finding.code,
            code_description=lsp.CodeDescription(_PAGE),
            source="softdraw-doctor",
        )

    def range(self, known: Examined, finding: Finding) -> lsp.Range:
        """From where the finding begins to the end of its line, in the units that the editor counts in."""
        line = known.lines[finding.line - 1]
        units = self.protocol.workspace.position_codec.client_num_units
        start, end = units(line[: finding.column - 1]), units(line.rstrip())
        return lsp.Range(lsp.Position(finding.line - 1, start), lsp.Position(finding.line - 1, max(start, end)))

    def at(self, uri: str, first: int, last: int) -> list[Finding]:
        """The findings of these lines, counted from 0."""
        known = self.known.get(uri, Examined(""))
        return [finding for finding in known.findings if first <= finding.line - 1 <= last]

    def hover(self, params: lsp.HoverParams) -> lsp.Hover | None:
        """The explanations of the checks that found something in the line."""
        line = params.position.line
        codes = dict.fromkeys(finding.code for finding in self.at(params.text_document.uri, line, line))
        text = "\n\n---\n\n".join(f"```text\n{_EXPLANATIONS[code]}\n```" for code in codes)
        return lsp.Hover(lsp.MarkupContent(lsp.MarkupKind.Markdown, text)) if text else None

    def actions(self, params: lsp.CodeActionParams) -> list[lsp.CodeAction]:
        """A rewrite for each finding in the range that has one, and one that makes every safe rewrite of the file."""
        uri, asked = params.text_document.uri, params.context.only
        known = self.known.get(uri)
        if known is None or self.protocol.workspace.get_text_document(uri).source != known.text:
            return []  # the text has changed since: the editor asks again
        found = self.at(uri, params.range.start.line, params.range.end.line)
        actions = [self.fix(uri, known, finding) for finding in found if finding.edits]
        if any(f.edits and not f.unsafe for f in known.findings):
            actions.append(self.fix_all(uri, known))
        return [a for a in actions if asked is None or any(_is_kind(a.kind, wanted) for wanted in asked)]

    def fix(self, uri: str, known: Examined, finding: Finding) -> lsp.CodeAction:
        new, _ = rewritten(known.text, str(to_fs_path(uri)), [finding.edits], _taken(uri))
        warning = " (changes results, or what other files use)" if finding.unsafe else ""
        return lsp.CodeAction(
            title=f"{finding.code}: rewrite{warning}",
            kind=lsp.CodeActionKind.QuickFix,
            diagnostics=[self.diagnostic(known, finding)],
            is_preferred=not finding.unsafe,
            edit=self.edit(uri, known, new),
        )

    def fix_all(self, uri: str, known: Examined) -> lsp.CodeAction:
        path = Path(to_fs_path(uri) or "untitled.py")
        new = repair(known.text, str(path), self.checks(path), keep=_taken(uri)).text
        edit = self.edit(uri, known, new)
        return lsp.CodeAction(title="softdraw-doctor: every safe rewrite", kind=_FIX_ALL, edit=edit)

    def edit(self, uri: str, known: Examined, new: str) -> lsp.WorkspaceEdit:
        """The lines that change; the editor keeps its cursor and marks in all others."""
        before, after = _with_ends(known.text), _with_ends(new)
        changes: list[lsp.TextEdit] = []
        for kind, first, last, start, end in difflib.SequenceMatcher(None, before, after, False).get_opcodes():
            if kind != "equal":
                place = lsp.Range(lsp.Position(first, 0), self.end(before, last))
                changes.append(lsp.TextEdit(place, "".join(after[start:end])))
        return lsp.WorkspaceEdit(changes={uri: changes})

    def end(self, lines: Sequence[str], last: int) -> lsp.Position:
        """The beginning of line ``last``, or the end of a text whose last line has no end."""
        if last < len(lines) or not lines or LINE_END.search(lines[-1]):
            return lsp.Position(last, 0)
        return lsp.Position(last - 1, self.protocol.workspace.position_codec.client_num_units(lines[-1]))


def _with_ends(text: str) -> list[str]:
    """The lines with their ends, split where Python and the protocol split."""
    ends = [match.end() for match in LINE_END.finditer(text)]
    starts = [0, *ends]
    return [line for start, end in zip(starts, [*ends, len(text)], strict=True) if (line := text[start:end])]


def _taken(uri: str) -> set[str]:
    """The names that the files beside this one import from it."""
    path = Path(to_fs_path(uri) or "untitled.py")
    return files.imported_names([path]).get(path.stem, set())


def _is_kind(kind: str | None, wanted: str) -> bool:
    return kind is not None and (kind == wanted or kind.startswith(f"{wanted}."))


def server() -> LanguageServer:
    """A server that has yet to be started."""
    protocol = LanguageServer("softdraw-doctor", __version__)
    state = Server(protocol)
    opened = lsp.TEXT_DOCUMENT_DID_OPEN, lsp.TEXT_DOCUMENT_DID_SAVE
    for name in opened:
        protocol.feature(name)(lambda params: state.examine(params.text_document.uri))

    @protocol.feature(lsp.TEXT_DOCUMENT_DID_CHANGE)
    async def changed(params: lsp.DidChangeTextDocumentParams) -> None:
        await asyncio.sleep(_PAUSE)
        now = protocol.workspace.text_documents.get(params.text_document.uri)
        if now is not None and now.version == params.text_document.version:
            state.examine(params.text_document.uri)

    @protocol.feature(lsp.TEXT_DOCUMENT_DID_CLOSE)
    def closed(params: lsp.DidCloseTextDocumentParams) -> None:
        state.known.pop(params.text_document.uri, None)
        state.publish(params.text_document.uri, None)

    protocol.feature(lsp.TEXT_DOCUMENT_HOVER)(lambda params: state.hover(params))
    kinds = lsp.CodeActionOptions([lsp.CodeActionKind.QuickFix, _FIX_ALL])
    protocol.feature(lsp.TEXT_DOCUMENT_CODE_ACTION, kinds)(lambda params: state.actions(params))
    return protocol


def serve() -> None:
    """Answer one editor, until it ends."""
    server().start_io()
