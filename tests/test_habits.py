"""What the field expects beside code: workflows, templates and versions that agree."""

import re
from pathlib import Path

import pytest
import yaml

import hpcgeo
from hpcgeo.cli.main import TORCH

ROOT = Path(__file__).parents[1]
FILES = [
    *sorted(ROOT.glob(".github/**/*.yml")),
    ROOT / "CITATION.cff",
    ROOT / ".pre-commit-config.yaml",
]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_it_is_yaml(path):
    assert isinstance(yaml.safe_load(path.read_text("utf-8")), dict)


def test_the_matrix_is_what_the_readme_claims():
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text("utf-8"))
    matrix = workflow["jobs"]["test"]["strategy"]["matrix"]
    readme = " ".join((ROOT / "README.md").read_text("utf-8").split())
    setup = (ROOT / "setup.cfg").read_text("utf-8")
    assert f"Python {matrix['python'][0]} to {matrix['python'][1]}" in readme
    assert f"python_requires = >={matrix['python'][0]}" in setup
    assert f"PyTorch ({matrix['torch'][0]} or newer" in readme
    assert f"torch >= {matrix['torch'][0]}" in setup
    assert matrix["torch"][0] == ".".join(map(str, TORCH))
    assert matrix["torch"][-1] == "latest"


def test_changelog_and_citation():
    text = (ROOT / "CHANGELOG.md").read_text("utf-8")
    heads = re.findall(r"^## (.*)", text, flags=re.MULTILINE)
    assert heads and all(
        re.match(r"\[(Unreleased|\d+\.\d+\.\d+)\]( - \d{4}-\d\d-\d\d)?$", h) for h in heads
    )
    assert set(re.findall(r"^### (.*)", text, flags=re.MULTILINE)) <= {"Added", "Changed", "Fixed"}
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))["version"]
    assert hpcgeo.__version__.startswith(cited)
