"""What stands in several files of the project and must agree: versions, addresses, the tools that workflows call."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import softdraw

yaml = pytest.importorskip("yaml")

ROOT = Path(__file__).parent.parent
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
pytestmark = pytest.mark.skipif(not WORKFLOWS, reason="an sdist has no workflows")


def text(name: str) -> str:
    return (ROOT / name).read_text()


def test_the_citation_names_this_version_and_the_address_of_the_project():
    cited = yaml.safe_load(text("CITATION.cff"))
    assert cited["version"] == softdraw.__version__
    assert cited["license"] == re.search(r'^license = "(.*)"', text("pyproject.toml"), re.MULTILINE)[1]
    home = re.search(r'^Homepage = "(.*)"', text("pyproject.toml"), re.MULTILINE)[1]
    assert cited["repository-code"] == cited["url"] == home
    assert cited["authors"] == [{"name": "The softdraw developers"}]
    assert set(re.findall(r"https://github\.com/[\w-]+/[\w-]+", text("pyproject.toml"))) == {home}
    assert f"[Unreleased]: {home}/" in text("CHANGELOG.md")


def test_the_site_names_the_addresses_of_the_project():
    urls = dict(re.findall(r'^(\w+) = "(https://.*)"', text("pyproject.toml"), re.MULTILINE))
    site = text("mkdocs.yml")
    assert re.findall(r"^      - Source code: (.*)$", site, re.MULTILINE) == [urls["Source"]]
    assert re.findall(r"^site_url: (.*)$", site, re.MULTILINE) == [urls[n] for n in ("Documentation",) if n in urls]


def test_the_changelog_keeps_its_form():
    lines = text("CHANGELOG.md").splitlines()
    versions = [line for line in lines if line.startswith("## ")]
    assert versions[0] == "## [Unreleased]"
    assert all(re.fullmatch(r"## \[\d+\.\d+\.\d+\] - \d{4}-\d\d-\d\d", line) for line in versions[1:])
    kinds = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    assert {line[4:] for line in lines if line.startswith("### ")} <= kinds
    parts = re.split(r"^## ", text("CHANGELOG.md"), flags=re.MULTILINE)[1:]
    for part in parts:
        found = re.findall(r"^### (.*)", part, re.MULTILINE)
        assert len(found) == len(set(found)), "a kind of change has one heading in a version"


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_call_scripts_that_are_here(workflow):
    jobs = yaml.safe_load(workflow.read_text())["jobs"]
    said = [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]
    scripts = re.findall(r"(?:tools|\.ci)/[\w-]+", " ".join(said))
    assert all((ROOT / name).stat().st_mode & 0o111 or f"bash {name}" in " ".join(said) for name in scripts)
    assert scripts or workflow.name == "docs.yml"


def test_every_system_that_has_a_wheel_is_checked():
    built = set(re.findall(r"^[\w-]+ +(\S+) +(?:Linux|Darwin|Windows) ", text("tools/wheels"), re.MULTILINE))
    replayed = set(re.findall(r"\breplay (\S+-\S+) ", text("tools/check-wheels")))
    said_not_to_run = {"aarch64-macos.11.0", "x86_64-macos.11.0"}
    assert built == replayed | said_not_to_run
