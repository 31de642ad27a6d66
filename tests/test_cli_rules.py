"""Rules as they are spelt on a command line: what is meant is guessed and said, never taken."""

from __future__ import annotations

import pytest

import softdraw
from softdraw import rules
from softdraw.cli import run
from softdraw.errors import InputError
from softdraw.rules.pathwise import Pathwise
from softdraw.rules.spelling import parse_rule, parse_rules, parse_words


def test_every_rule_has_its_names():
    for name in rules.__all__:
        kind = getattr(rules, name)
        if kind is softdraw.Relax:  # needs a network, which no word can be
            continue
        hyphens = "".join(f"-{x}" if x.isupper() and i else x for i, x in enumerate(name))
        for spelt in (name, name.lower(), name.upper(), hyphens):
            assert parse_rule(spelt) == kind()
    made = parse_rules("gr:tau=.1:samples=3,st, LeaveOneOut:samples=7")
    assert made == [
        softdraw.GumbelRao(tau=0.1, samples=3), softdraw.StraightThrough(), softdraw.LeaveOneOut(samples=7)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("zrg", "zgr"),
        ("gumbl-softmax", "gumbel-softmax"),
        ("straight-thru", "straight-through"),
        ("reimax", "reinmax"),
        ("reinmaxrao2", "reinmax-rao"),
        ("Straight_Through_Gumble", "straight-through-gumbel"),
    ],
)
def test_a_misspelt_rule(text, meant):
    with pytest.raises(InputError, match=f"^there is no rule '{text}': did you mean {meant}\\? choose from ZGR"):
        parse_rule(text)
    assert type(parse_rule(meant)).__name__.lower() == meant.replace("-", "")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("banana", "there is no rule 'banana': choose from ZGR, DisARM"),
        ("r", "'r' is short for Rebar and Reinforce and Relax: write more of it"),
        ("reinmax:tua=1", "'reinmax:tua=1': ReinMax has no 'tua': did you mean tau=? it takes tau="),
        ("gumbel-rao:sample=2", "GumbelRao has no 'sample': did you mean samples=? it takes samples=, tau="),
        ("reinmax:gap=1", "ReinMax has no 'gap': it takes tau="),
        ("zgr:tau=1", "ZGR has no 'tau': it takes nothing"),
        ("reinmax:tau=x", "tau must be a number, got 'x'"),
        ("reinmax:tau", "tau must be a number, got ''"),
        ("reinmax:tau=1:tau=2", "gives tau twice"),
        ("reinmax:tau=0", "'reinmax:tau=0' does not make a ReinMax (tau of ReinMax must be positive"),
        ("relax", "Relax needs control, not a number: use it from Python"),
    ],
)
def test_bad_words(text, message):
    with pytest.raises(InputError) as refused:
        parse_rule(text)
    assert message in str(refused.value)


def test_a_rule_of_subsets_in_train():
    assert parse_rule("imle:lam=2") == softdraw.IMLE(2.0)
    said = "there is no pathwise rule 'imle': IMLE is a rule for k of n items, for softdraw.draw"
    with pytest.raises(InputError, match=said):
        parse_words("imle", Pathwise)


@pytest.mark.parametrize("text", [n for n in rules.__all__ if not issubclass(getattr(rules, n), Pathwise)])
def test_a_score_function_rule_in_train(text, capsys, tmp_path):
    """It exists, and the message says where it goes."""
    for command in (["train", "--rule", text], ["compare", "--rules", f"zgr,{text}"]):
        assert run([*command, "--out", str(tmp_path / "run")]) == 2
        said = capsys.readouterr().err
        assert f"{text} is a score-function rule, for softdraw.expect and softdraw diagnose: choose from ZGR" in said
    assert not (tmp_path / "run").exists()
