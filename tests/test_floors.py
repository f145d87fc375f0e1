"""The floors: a module imports its own package and strictly lower ones, nothing else of ours."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

#: Below the ground: what every floor may use.
CELLAR = {"", "errors", "files", "tables", "log", "phases", "knobs"}
FLOORS = {
    **dict.fromkeys(["", "errors", "files", "facts", "recipes"], -2),
    **dict.fromkeys(["tables", "log", "phases", "knobs"], -1),
    **dict.fromkeys(["sensors", "zoo", "machines", "strategies", "records", "config"], 0),
    **dict.fromkeys(["plan", "data", "models"], 1),
    "objectives": 2,
    **dict.fromkeys(["parallel", "launch"], 3),
    "train": 4,
    **dict.fromkeys(["evaluate", "profiling"], 5),
    "cli": 6,
    "__main__": 7,
}

#: What needs no torch, so that it answers at once on a login node.
INSTANT = [
    *("hpcgeo.config", "hpcgeo.zoo", "hpcgeo.machines", "hpcgeo.strategies", "hpcgeo.sensors"),
    *("hpcgeo.records", "hpcgeo.log", "hpcgeo.cli.main", "hpcgeo.cli.list", "hpcgeo.cli.jobs"),
    *(f"hpcgeo.plan.{path.stem}" for path in sorted((ROOT / "hpcgeo/plan").glob("[!_]*.py"))),
    *(f"hpcgeo.launch.{path.stem}" for path in sorted((ROOT / "hpcgeo/launch").glob("[!_]*.py"))),
]


def imports(text: str) -> set[str]:
    """Return every module named by an import statement, also inside functions."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.module and not node.level, "absolute imports only"
            # `from hpcgeo.train import pictures` names a module, `from hpcgeo.log import log` not.
            found |= {f"{node.module}.{name.name}" for name in node.names}
    return found


def room(module: str) -> str:
    """Return the part of a dotted name that has a floor: ``hpcgeo.train.loop`` -> ``train``."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in FLOORS else ""


def breaches(own: str, text: str) -> list[str]:
    """Return the imports of a module in the room `own` that its floor forbids."""
    ours = sorted(name for name in imports(text) if name.split(".")[0] == "hpcgeo")
    return [name for name in ours if room(name) != own and not FLOORS[room(name)] < FLOORS[own]] + [
        name for name in imports(text) if name.startswith("hpcgeo_analysis") and own != "cli"
    ]


def modules(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


@pytest.mark.parametrize("path", modules("hpcgeo"), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_imports_lower_floors_only(path):
    relative = path.relative_to(ROOT / "hpcgeo")
    own = "" if relative.name == "__init__.py" and len(relative.parts) == 1 else relative.parts[0]
    own = own.removesuffix(".py")
    assert own in FLOORS, f"{relative}: give it a floor"
    assert not breaches(own, path.read_text())


@pytest.mark.parametrize("path", modules("analysis"), ids=lambda path: path.name)
def test_the_report_reads_records_and_facts_only(path):
    allowed = {"records", "strategies", "zoo", *CELLAR}
    for name in imports(path.read_text()):
        if name.split(".")[0] == "hpcgeo" and not name.startswith("hpcgeo.plan.links"):
            assert name.split(".")[1] in allowed, name
        assert name.split(".")[0] != "torch"


@pytest.mark.parametrize(
    ("own", "text", "forbidden"),
    [
        ("data", "from hpcgeo.models.vit import ViT", ["hpcgeo.models.vit.ViT"]),
        ("data", "def f():\n    import hpcgeo.train.pretrain", ["hpcgeo.train.pretrain"]),
        ("zoo", "from hpcgeo import config", ["hpcgeo.config"]),
        ("train", "from hpcgeo.config import load\nfrom hpcgeo.train import loop", []),
        ("launch", "from hpcgeo.parallel.group import join", ["hpcgeo.parallel.group.join"]),
        ("train", "from hpcgeo_analysis.report import make", ["hpcgeo_analysis.report.make"]),
        ("tables", "from hpcgeo.log import log", ["hpcgeo.log.log"]),
    ],
)
def test_the_test_sees_a_breach(own, text, forbidden):
    assert breaches(own, text) == forbidden


@pytest.mark.parametrize("module", INSTANT)
def test_the_ground_is_instant(module):
    program = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0, f"{module}: torch"
