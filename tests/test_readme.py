"""What the README names exists: links, paths, commands, recipes, the version."""

import re
from pathlib import Path

import pytest

from hpcgeo import __version__
from hpcgeo.cli.main import COMMANDS
from hpcgeo.config import recipes

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")


@pytest.mark.parametrize("link", re.findall(r"\]\(([^)#]+)\)", README))
def test_links(link: str) -> None:
    assert (ROOT / link).exists()


@pytest.mark.parametrize("command", sorted(set(re.findall(r"\bhpcgeo ([a-z]+)", README))))
def test_commands(command: str) -> None:
    assert command in COMMANDS


@pytest.mark.parametrize(
    "path", sorted(set(re.findall(r"\b(?:tests|jobs|profiles|benchmarks|docs)/[\w./]*\w", README)))
)
def test_paths(path: str) -> None:
    assert (ROOT / path).exists()


def test_the_tree() -> None:
    tree = re.search(r"```\nhpcgeo/\n(.*?)```", README, re.DOTALL)
    assert tree
    named = set()
    for line in tree[1].splitlines():
        base = "hpcgeo/" if line.startswith("  ") else ""
        names = re.match(r"\s*((?:[\w./]+(?:\.py|/) *)+)", line)
        assert names, line
        for name in names[1].split():
            assert (ROOT / (base + name)).exists(), line
            named.add(base + name.rstrip("/"))
    rooms = {f"hpcgeo/{path.name}" for path in (ROOT / "hpcgeo").iterdir() if path.name[0] != "_"}
    assert rooms <= named, "rooms without a line in the tree"


def test_recipes_named_exist() -> None:
    named = set(re.findall(r"\b(?:mae_vit|gpna)_\w+", README))
    assert named and named <= set(recipes())


def test_the_changelog_has_this_version() -> None:
    assert f"## [{__version__}]" in (ROOT / "CHANGELOG.md").read_text("utf-8")
