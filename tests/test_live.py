"""The built site in headless Chromium: the live page shows the numbers that Python prints, at both widths, by keyboard.

SOFTDRAW_SCREENSHOTS=FOLDER keeps pictures of the live page.
"""

from __future__ import annotations

import functools
import http.server
import json
import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

import softdraw
from tests.browser import Browser, program

pytestmark = [pytest.mark.docs, pytest.mark.xdist_group("browser")]
for library in ("mkdocs", "websocket", "ziglang"):
    pytest.importorskip(library, reason="the extra docs is not installed")

ROOT = Path(__file__).parents[1]
SCREENS = {"desktop": (1280, 900, False), "phone": (390, 844, True)}
ESTIMATES, DRAWS = 4000, 10000  # those of docs/live/page.js


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args) -> None:
        pass


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The built site on a port of this machine: its address and its folder."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env={**os.environ, "NO_COLOR": "1"})
    assert built.returncode == 0, built.stderr
    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", folder
        server.shutdown()


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if program() is None:
        pytest.skip("no Chromium here: install Debian's package chromium")
    opened = Browser(tmp_path_factory.mktemp("chromium"))
    yield opened
    opened.close()


@pytest.fixture(params=SCREENS)
def live(browser, site, request):
    """The live page, opened anew, with its first numbers shown."""
    browser.open(f"{site[0]}/live/", *SCREENS[request.param])
    browser.until("document.body.dataset.shown")
    yield browser
    if folder := os.environ.get("SOFTDRAW_SCREENSHOTS"):
        browser.screenshot(Path(folder) / f"{request.node.name.replace('/', '-')}.png")
    assert browser.errors == []
    assert browser.run("document.documentElement.scrollWidth") <= SCREENS[request.param][0], "the page is too wide"


def table(live: Browser, name: str) -> dict[str, list[str]]:
    """The body of a table: the first cell of each row, and its others."""
    cells = f"[...document.querySelectorAll('#{name} tbody tr')].map(r => [...r.cells].map(c => c.textContent))"
    return {first: rest for first, *rest in live.run(cells)}


def numbers(cells: list[str]) -> torch.Tensor:
    return torch.tensor([float(cell) for cell in cells])


def check_draw(live: Browser, logits: list[float], tau: float, seed: int) -> None:
    """What the page says of one draw and of many is what Python says."""
    live.until(f"JSON.parse(document.body.dataset.shown).seed == {seed}")
    x = torch.tensor(logits)
    shown = table(live, "draw")
    torch.testing.assert_close(numbers(shown["soft"]), softdraw.gumbel_softmax(x, tau, seed=seed), atol=6e-5, rtol=0)
    assert torch.equal(numbers(shown["hard"]), softdraw.gumbel_softmax(x, tau, hard=True, seed=seed))
    torch.testing.assert_close(numbers(shown["probability"]), x.softmax(-1), atol=6e-5, rtol=0)
    counts = softdraw.gumbel_max(x, sample_shape=(DRAWS,), seed=seed).bincount(minlength=len(logits))
    assert [cells[0] for cells in table(live, "frequencies").values()] == [f"{n / DRAWS:.4f}" for n in counts.tolist()]


def test_the_first_numbers_are_those_of_the_readme(live):
    check_draw(live, [1.0, 2.0, 3.0], 1.0, 0)
    assert table(live, "draw")["soft"] == ["0.2233", "0.1455", "0.6313"]
    code = live.run("document.getElementById('python').textContent")
    assert code.splitlines()[2] == str(softdraw.gumbel_softmax(torch.tensor([1.0, 2.0, 3.0]), tau=1, seed=0))
    assert code.splitlines()[4] == str(softdraw.gumbel_max(torch.tensor([1.0, 2.0, 3.0]), seed=0))


def test_the_slider_moves_tau_by_keyboard(live):
    live.run("document.getElementById('logits').focus()")
    live.press("Tab")
    assert live.run("document.activeElement.id") == "tau"
    for key, times, exponent in (("ArrowLeft", 40, -0.4), ("Home", 1, -1.3), ("End", 1, 1.0)):
        live.press(key, times)
        tau = float(f"{10**exponent:.3g}")
        live.until(f"JSON.parse(document.body.dataset.shown).tau == {tau}")
        assert float(live.run("document.getElementById('tau-value').textContent")) == tau
        check_draw(live, [1.0, 2.0, 3.0], tau, 0)


def test_typed_logits_and_seed(live):
    live.run("document.getElementById('logits').focus()")
    live.write("0.5, -inf, 2, 1")
    live.press("Tab", 2)
    assert live.run("document.activeElement.id") == "seed"
    live.write("4294967295")
    check_draw(live, [0.5, float("-inf"), 2.0, 1.0], 1.0, 4294967295)
    assert live.run("document.getElementById('simplex').hidden")
    live.write("7")
    check_draw(live, [0.5, float("-inf"), 2.0, 1.0], 1.0, 7)


def test_as_many_categories_as_fit(live):
    logits = [round(1.7 * ((7 * k) % 16) / 16 - 1, 3) for k in range(16)]
    live.run("document.getElementById('logits').focus()")
    live.write(" ".join(map(str, logits)))
    live.until("JSON.parse(document.body.dataset.shown).logits.length == 16")
    check_draw(live, logits, 1.0, 0)


def test_what_cannot_be_drawn_is_said(live):
    live.run("document.getElementById('logits').focus()")
    for text, complaint in (("1, x", "“x” is not a logit"), ("1", "Type 2 to"), ("-inf -inf", "Every category")):
        live.write(text)
        live.until(f"document.getElementById('complaint').textContent.startsWith({json.dumps(complaint)})")
        assert live.run("document.getElementById('logits').getAttribute('aria-invalid')") == "true"
    live.write("3, 1")
    live.until("document.getElementById('complaint').textContent == ''")
    live.until("JSON.parse(document.body.dataset.shown).logits.length == 2")
    check_draw(live, [3.0, 1.0], 1.0, 0)


def rule_of(shown: str):
    """A rule from its name on the page, such as "GumbelRao(tau=1, samples=10)"."""
    name, given = re.fullmatch(r"(\w+)\((.*)\)", shown).groups()  # pyright: ignore
    values = [part.partition("=")[::2] for part in given.split(", ") if "=" in part]
    return getattr(softdraw, name)(**{key: float(x) if key == "tau" else int(x) for key, x in values})


def mean_gradient(rule, logits: torch.Tensor, f, seed: int) -> torch.Tensor:
    """The mean of the gradients for the logits, over the draws that the page makes."""
    theta = logits.clone().requires_grad_()
    y = softdraw.draw(softdraw.OneHotCategorical(theta), rule, (ESTIMATES,), seed=seed)
    f(y).mean().backward()
    return theta.grad  # pyright: ignore


@pytest.mark.parametrize("power", [1, 2, 4])
def test_the_gradients_are_those_of_python(live, power):
    for field, value in (("power", power), ("tau", -0.3)):  # at tau 1 some rules are equal
        live.run(f"e = document.getElementById('{field}'), e.value = '{value}', e.dispatchEvent(new Event('input'))")
    live.run("document.getElementById('power').focus()")
    live.press("Tab")
    assert live.run("document.activeElement.id") == "target"
    live.press("ArrowRight", 15)
    wanted = f"(s => s.power == {power} && s.target == 0.6 && s.tau == 0.501)(JSON.parse(document.body.dataset.shown))"
    live.until(wanted)
    logits, values = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0.0, 0.5, 1.0])

    def f(y: torch.Tensor) -> torch.Tensor:
        return (y @ values - 0.6) ** power

    shown = table(live, "rules")
    theta = logits.clone().requires_grad_()
    softdraw.expect(f, softdraw.OneHotCategorical(theta), softdraw.Exact()).backward()
    truth = shown.pop("true gradient")
    torch.testing.assert_close(numbers(truth[2:]), theta.grad, atol=6e-5, rtol=0)
    assert len(shown) == 9
    for name, cells in shown.items():
        if name.startswith("LeaveOneOut"):  # made by the page from draws of four streams
            assert (numbers(cells[2:]) - theta.grad).norm() < 0.15 * theta.grad.norm()
            assert cells[0].startswith("(")
            continue
        mean = mean_gradient(rule_of(name), logits, f, 0)
        torch.testing.assert_close(numbers(cells[2:]), mean, atol=2e-4, rtol=0, msg=lambda m, n=name: f"{n}: {m}")
        bias = ((mean - theta.grad).norm() / theta.grad.norm()).item()
        assert abs(float(cells[0].strip("()")) - bias) < 0.02


def test_no_docstring_is_left_as_it_is_written_in_python(site):
    for page in sorted(site[1].rglob("index.html")):
        text = page.read_text()
        assert [math for math in re.findall(r"<math.*?</math>", text, re.DOTALL) if "\\" in math] == [], page
        if "reference" in page.parts:
            assert re.findall(r":(?:math|func|class):", text) == [], page
            assert re.findall(r"<blockquote>", text) == [], (
                f"{page}: an argument whose text begins with > became a quotation"
            )


@pytest.mark.parametrize("screen", SCREENS)
def test_every_page_opens_without_a_complaint(browser, site, screen):
    address, folder = site
    for page in sorted(folder.rglob("index.html")):
        browser.open(f"{address}/{page.parent.relative_to(folder)}/".replace("/./", "/"), *SCREENS[screen])
        assert browser.errors == [], page
        assert browser.run("document.documentElement.scrollWidth") <= SCREENS[screen][0], f"{page} is too wide"
