"""The doctor's language server, asked by pygls' own client over standard input and output, as an editor asks."""

from __future__ import annotations

import asyncio
import sys

import pytest
from doctor_cases import BAD, IMPORTS
from softdraw_doctor import command
from softdraw_doctor.engine import examine, repair
from softdraw_doctor.explain import explain
from softdraw_doctor.runner import chosen

SAFE = BAD[0]
# A character of two UTF-16 units before the finding, a form feed that ends no line, two findings and a comment.
TEXT = IMPORTS + (
    "def f(x, y):\n"
    "    # \N{GRINNING FACE} \x0c\n"
    "    '\N{GRINNING FACE}'; return F.binary_cross_entropy(torch.sigmoid(x), y) + F.cross_entropy(x.softmax(-1), y)\n"
)


def test_without_pygls_it_says_how_to_get_it(monkeypatch, capsys):
    monkeypatch.delitem(sys.modules, "softdraw_doctor.lsp", raising=False)
    monkeypatch.setitem(sys.modules, "lsprotocol", None)
    assert command.run(["lsp"]) == 2
    assert "pip install 'softdraw-doctor[lsp]'" in capsys.readouterr().err


def replaced(text, edits):
    """The text with the edits of the protocol, whose columns are 0 here."""
    lines = text.split("\n")
    for edit in sorted(edits, key=lambda e: e.range.start.line, reverse=True):
        start, end = edit.range.start, edit.range.end
        assert start.character == 0
        before, after = "\n".join([*lines[: start.line], ""]), "\n".join(lines[end.line :])
        lines = (before + edit.new_text + after[end.character :]).split("\n")
    return "\n".join(lines)


@pytest.mark.integrations
def test_an_editor_gets_the_findings_the_explanations_and_the_fixes(tmp_path):
    asyncio.run(asyncio.wait_for(session(tmp_path), 60))


async def session(folder):
    """One server, which is asked everything: starting it is what takes time."""
    editor = Editor(folder / "train.py")
    await editor.start()
    await opened(editor)
    await helped(editor)
    await changed(editor)
    await editor.stop()


class Editor:
    """pygls' client with one file."""

    def __init__(self, file):
        from lsprotocol import types
        from pygls.lsp.client import LanguageClient

        self.lsp, self.file, self.uri = types, file, file.as_uri()
        self.here = types.TextDocumentIdentifier(self.uri)
        self.client, self.published, self.version = LanguageClient("editor", "1"), asyncio.Queue(), 0
        name = types.TEXT_DOCUMENT_PUBLISH_DIAGNOSTICS
        self.client.feature(name)(lambda params: self.published.put_nowait(params))

    async def start(self):
        await self.client.start_io(sys.executable, "-m", "softdraw_doctor", "lsp")
        await self.client.initialize_async(self.lsp.InitializeParams(self.lsp.ClientCapabilities()))
        self.client.initialized(self.lsp.InitializedParams())
        self.file.write_text(TEXT, encoding="utf-8")
        item = self.lsp.TextDocumentItem(self.uri, "python", 0, TEXT)
        self.client.text_document_did_open(self.lsp.DidOpenTextDocumentParams(item))

    async def stop(self):
        await self.client.shutdown_async(None)
        self.client.exit(None)
        await self.client.stop()

    async def diagnostics(self):
        found = await self.published.get()
        assert found.uri == self.uri
        return list(found.diagnostics)

    async def actions(self, line):
        place = self.lsp.Range(self.lsp.Position(line, 0), self.lsp.Position(line, 9))
        asked = self.lsp.CodeActionParams(self.here, place, self.lsp.CodeActionContext([]))
        return await self.client.text_document_code_action_async(asked)

    async def hover(self, line):
        shown = await self.client.text_document_hover_async(
            self.lsp.HoverParams(self.here, self.lsp.Position(line, 12))
        )
        return shown and shown.contents.value

    def change(self, text):
        self.version += 1
        document = self.lsp.VersionedTextDocumentIdentifier(self.version, self.uri)
        whole = [self.lsp.TextDocumentContentChangeWholeDocument(text)]
        self.client.text_document_did_change(self.lsp.DidChangeTextDocumentParams(document, whole))

    def save(self):
        self.client.text_document_did_save(self.lsp.DidSaveTextDocumentParams(self.here))


async def opened(editor):
    """The same findings as on the command line, at the same places."""
    found, expected = await editor.diagnostics(), examine(TEXT, str(editor.file), chosen())
    assert [d.code for d in found] == [f.code for f in expected] == ["SD101", "SD105"]
    assert [f.message in d.message for d, f in zip(found, expected, strict=True)] == [True, True]
    line = TEXT.split("\n")[6].encode("utf-16-le")
    starts = [line[2 * d.range.start.character :].decode("utf-16-le") for d in found]
    assert [s.partition("(")[0] for s in starts] == ["F.binary_cross_entropy", "F.cross_entropy"]
    assert {(d.range.start.line, d.range.end.line, d.range.end.character) for d in found} == {(6, 6, len(line) // 2)}


async def helped(editor):
    """The explanations, and the fixes: one a finding, and one for everything that is safe."""
    shown = await editor.hover(6)
    assert all(explain(code) in shown for code in ("SD101", "SD105"))
    assert await editor.hover(0) is None
    one, unsafe, every = await editor.actions(6)
    assert [one.is_preferred, unsafe.is_preferred] == [True, False]
    assert "changes results" in unsafe.title
    repaired = repair(TEXT, str(editor.file), chosen()).text
    assert repaired != TEXT
    for action in (one, every):
        assert replaced(TEXT, action.edit.changes[editor.uri]) == repaired
    assert [action.kind for action in await editor.actions(0)] == ["source.fixAll.softdraw-doctor"]


async def changed(editor):
    """A text that does not parse leaves what stands; the settings are read anew."""
    editor.change(TEXT + "def")
    editor.save()
    editor.change(SAFE.fixed)
    assert await editor.diagnostics() == []
    settings = editor.file.with_name("pyproject.toml")
    settings.write_text('[tool.softdraw.doctor]\nselect = ["SD105"]\n')
    editor.change(TEXT)
    assert [d.code for d in await editor.diagnostics()] == ["SD105"]
    settings.write_text('[tool.softdraw.doctor]\nexclude = ["train*"]\n')
    editor.save()
    assert await editor.diagnostics() == []
    assert editor.published.empty()
