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


async def session(tmp_path):
    from lsprotocol import types as lsp
    from pygls.lsp.client import LanguageClient

    client, published = LanguageClient("editor", "1"), asyncio.Queue()
    client.feature(lsp.TEXT_DOCUMENT_PUBLISH_DIAGNOSTICS)(lambda params: published.put_nowait(params))
    await client.start_io(sys.executable, "-m", "softdraw_doctor", "lsp")
    capable = await client.initialize_async(lsp.InitializeParams(lsp.ClientCapabilities()))
    assert capable.capabilities.hover_provider
    client.initialized(lsp.InitializedParams())

    file = tmp_path / "train.py"
    file.write_text(TEXT, encoding="utf-8")
    uri = file.as_uri()
    here = lsp.TextDocumentIdentifier(uri)

    async def diagnostics():
        found = await published.get()
        assert found.uri == uri
        return list(found.diagnostics)

    async def actions(line):
        place = lsp.Range(lsp.Position(line, 0), lsp.Position(line, 9))
        asked = lsp.CodeActionParams(here, place, lsp.CodeActionContext([]))
        return await client.text_document_code_action_async(asked)

    # Opened: the same findings as on the command line, at the same places.
    client.text_document_did_open(lsp.DidOpenTextDocumentParams(lsp.TextDocumentItem(uri, "python", 1, TEXT)))
    found, expected = await diagnostics(), examine(TEXT, str(file), chosen())
    assert [d.code for d in found] == [f.code for f in expected] == ["SD101", "SD105"]
    assert [f.message in d.message for d, f in zip(found, expected, strict=True)] == [True, True]
    line = TEXT.split("\n")[6].encode("utf-16-le")
    starts = [line[2 * d.range.start.character :].decode("utf-16-le") for d in found]
    assert [s.partition("(")[0] for s in starts] == ["F.binary_cross_entropy", "F.cross_entropy"]
    assert {(d.range.start.line, d.range.end.line, d.range.end.character) for d in found} == {(6, 6, len(line) // 2)}

    # The explanations, and the fixes: one a finding, one for everything safe.
    shown = await client.text_document_hover_async(lsp.HoverParams(here, lsp.Position(6, 12)))
    assert all(explain(code) in shown.contents.value for code in ("SD101", "SD105"))
    assert await client.text_document_hover_async(lsp.HoverParams(here, lsp.Position(0, 0))) is None
    one, unsafe, every = await actions(6)
    assert [one.is_preferred, unsafe.is_preferred] == [True, False]
    assert "changes results" in unsafe.title
    repaired = repair(TEXT, str(file), chosen()).text
    assert repaired != TEXT
    for action in (one, every):
        assert replaced(TEXT, action.edit.changes[uri]) == repaired
    assert [action.kind for action in await actions(0)] == ["source.fixAll.softdraw-doctor"]

    # Changed: a text that does not parse leaves what stands, a repaired one clears it, a saved one is examined.
    def change(version, text):
        whole = [lsp.TextDocumentContentChangeWholeDocument(text)]
        document = lsp.VersionedTextDocumentIdentifier(version, uri)
        client.text_document_did_change(lsp.DidChangeTextDocumentParams(document, whole))

    change(2, TEXT + "def")
    client.text_document_did_save(lsp.DidSaveTextDocumentParams(here))
    change(3, SAFE.fixed)
    assert await diagnostics() == []
    (tmp_path / "pyproject.toml").write_text('[tool.softdraw.doctor]\nselect = ["SD105"]\n')
    change(4, TEXT)
    assert [d.code for d in await diagnostics()] == ["SD105"]
    (tmp_path / "pyproject.toml").write_text('[tool.softdraw.doctor]\nexclude = ["train*"]\n')
    client.text_document_did_save(lsp.DidSaveTextDocumentParams(here))
    assert await diagnostics() == []
    assert published.empty()
    await client.shutdown_async(None)
    client.exit(None)
    await asyncio.sleep(0)
    await client.stop()
