"""What README and the pages of the site name is there: links, paths, commands, recipes."""

import re
from pathlib import Path

import pytest
import yaml

from hpcgeo import __version__
from hpcgeo.cli.main import COMMANDS
from hpcgeo.config import recipes

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
PAGES = [README, ROOT / "CONTRIBUTING.md", ROOT / "profiles/README.md", *ROOT.glob("docs/*.md")]
FOLDERS = r"\b(?:tests|jobs|profiles|benchmarks|docs)/[\w./*-]*\w"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: f"{page.parent.name}/{page.name}")
def test_what_a_page_names_is_there(page: Path) -> None:
    text = page.read_text("utf-8")
    for link in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text):
        assert link.startswith("http") or (page.parent / link).exists(), link
    code = "\n".join(re.findall(r"^```.*?^```|`[^`\n]+`", text, re.DOTALL | re.MULTILINE))
    for command in re.findall(r"(?:^|[`&;(]\s*)hpcgeo ([a-z]+)", code, re.MULTILINE):
        assert command in COMMANDS, command
    for path in re.findall(FOLDERS, text):
        assert "*" in path or (ROOT / path).exists() or path.split("/")[1].isupper(), path
    named = set(re.findall(r"\b(?:mae_vit|gpna)_(?!vit)\w+", text))
    assert named <= {*recipes(), "gpna_sustainbench"}, named


def test_the_readme_is_short_and_leads_to_every_page() -> None:
    text = README.read_text("utf-8")
    assert len(text.splitlines()) <= 120
    pages = {f"docs/{page.name}" for page in ROOT.glob("docs/*.md")} - {"docs/index.md"}
    assert pages <= set(re.findall(r"\((docs/[\w-]+\.md)", text))


def test_every_page_is_in_the_site() -> None:
    nav = yaml.safe_load((ROOT / "mkdocs.yml").read_text("utf-8"))["nav"]
    listed = set(re.findall(r"[\w-]+\.md", str(nav)))
    assert listed == {page.name for page in ROOT.glob("docs/*.md")}


def test_the_tree() -> None:
    text = (ROOT / "docs/extending.md").read_text("utf-8")
    tree = re.search(r"```\w*\nhpcgeo/\n(.*?)```", text, re.DOTALL)
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


def test_the_changelog_has_this_version() -> None:
    assert f"## [{__version__}]" in (ROOT / "CHANGELOG.md").read_text("utf-8")
