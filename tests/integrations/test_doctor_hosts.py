"""The doctor inside the real flake8 and the real pre-commit."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.integrations
ROOT = Path(__file__).parents[2]
BAD = "from torch import nn\nloss = nn.functional.binary_cross_entropy(nn.functional.sigmoid(output), target)\n"


def test_flake8_reports_the_codes_at_their_places(tmp_path):
    pytest.importorskip("flake8", reason="pip install flake8")
    (tmp_path / "a.py").write_text(BAD + "quiet = nn.functional.nll_loss(x.softmax(1), y)  # noqa: SD106\n")
    command = [sys.executable, "-m", "flake8", "--select", "SD", "a.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    (line,) = done.stdout.splitlines()
    assert line.startswith("a.py:2:8: SD101 sigmoid into binary cross-entropy")
    version = subprocess.run([*command[:3], "--version"], cwd=tmp_path, capture_output=True, text=True).stdout
    assert "softdraw-doctor" in version


@pytest.fixture
def hooks(tmp_path):
    """A repository with what a checkout holds of the hook, and of its root, which the hook must not install."""
    place = tmp_path / "hooks"
    ignored = shutil.ignore_patterns(".environment-*", "__pycache__")
    shutil.copytree(ROOT / "doctor", place / "doctor", ignore=ignored)
    for name in (".pre-commit-hooks.yaml", "pyproject.toml"):
        shutil.copy(ROOT / name, place)
    return place, committed(place)


def git(place, *arguments):
    command = ["git", "-C", str(place), "-c", "user.name=a", "-c", "user.email=a@b", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def committed(place):
    for arguments in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "all"]):
        git(place, *arguments)
    return git(place, "rev-parse", "HEAD")


def test_pre_commit_installs_the_doctor_without_torch_and_fails_on_a_finding(tmp_path, hooks):
    pytest.importorskip("pre_commit", reason="pip install pre-commit")
    place, revision = hooks
    project = tmp_path / "project"
    project.mkdir()
    (project / "a.py").write_text(BAD)
    cell = {"cell_type": "code", "metadata": {}, "source": BAD.splitlines(True), "outputs": [], "execution_count": None}
    (project / "b.ipynb").write_text(json.dumps({"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}))
    hook = f"repos:\n- repo: {place}\n  rev: {revision}\n  hooks:\n  - id: softdraw-doctor\n"
    (project / ".pre-commit-config.yaml").write_text(hook)
    committed(project)
    around = {**os.environ, "PRE_COMMIT_HOME": str(tmp_path / "home")}
    around.pop("PYTHONPATH", None)

    def hooked():
        command = [sys.executable, "-m", "pre_commit", "run", "--all-files"]
        return subprocess.run(command, cwd=project, env=around, capture_output=True, text=True)

    done = hooked()
    assert done.returncode == 1, done.stderr + done.stdout
    assert "a.py:2:8 SD101" in done.stdout, done.stdout
    assert "b.ipynb:cell 1:2:8 SD101" in done.stdout
    installed = {path.name.partition("-")[0] for path in (tmp_path / "home").rglob("*.dist-info")}
    assert {"softdraw_doctor", "libcst", "typer", "rich"} <= installed
    assert not installed & {"softdraw", "torch"}
    for name in ("a.py", "b.ipynb"):
        file = project / name
        file.write_text(file.read_text().replace("cross_entropy(nn.functional.sigmoid(output)", "cross_entropy(output"))
    done = hooked()
    assert done.returncode == 0, done.stdout
