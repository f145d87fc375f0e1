"""The layers: a module imports its own package and strictly lower ones, nothing else of ours."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

#: Below the ground: what every layer may use.
TOOLS = {"", "errors", "files", "tables", "log", "phases", "options"}
LAYERS = {
    **dict.fromkeys(["", "errors", "files", "facts", "recipes"], -2),
    **dict.fromkeys(["tables", "log", "phases", "options"], -1),
    **dict.fromkeys(["sensors", "zoo", "machines", "strategies", "records", "config"], 0),
    "optimizers": 0,
    **dict.fromkeys(["plan", "data", "models"], 1),
    "kinds": 2,
    "objectives": 3,
    **dict.fromkeys(["parallel", "launch"], 4),
    "checkpoint": 5,
    "weights": 6,
    "workloads": 7,
    "train": 8,
    **dict.fromkeys(["evaluate", "profiling"], 9),
    "sweep": 10,
    "cli": 11,
    "__main__": 12,
}

#: Files and functions longer than this are to be split.
LINES_OF_A_FILE, LINES_OF_A_FUNCTION = 400, 60

#: What needs no torch, so that it answers at once on a login node.
INSTANT = [
    *("hpcgeo.config", "hpcgeo.zoo", "hpcgeo.machines", "hpcgeo.strategies", "hpcgeo.sensors"),
    *(
        "hpcgeo.records",
        "hpcgeo.optimizers.table",
        "hpcgeo.log",
        "hpcgeo.cli.main",
        "hpcgeo.cli.list",
        "hpcgeo.cli.jobs",
    ),
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
    """Return the part of a dotted name that has a layer: ``hpcgeo.train.loop`` -> ``train``."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in LAYERS else ""


def breaches(own: str, text: str) -> list[str]:
    """Return the imports of a module in the room `own` that its layer forbids."""
    ours = sorted(name for name in imports(text) if name.split(".")[0] == "hpcgeo")
    return [name for name in ours if room(name) != own and not LAYERS[room(name)] < LAYERS[own]] + [
        name for name in imports(text) if name.startswith("hpcgeo_analysis") and own != "cli"
    ]


def modules(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


@pytest.mark.parametrize("path", modules("hpcgeo"), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_imports_lower_layers_only(path):
    relative = path.relative_to(ROOT / "hpcgeo")
    own = "" if relative.name == "__init__.py" and len(relative.parts) == 1 else relative.parts[0]
    own = own.removesuffix(".py")
    assert own in LAYERS, f"{relative}: give it a layer"
    assert not breaches(own, path.read_text())


@pytest.mark.parametrize("path", modules("analysis"), ids=lambda path: path.name)
def test_the_report_reads_records_and_facts_only(path):
    allowed = {"records", "strategies", "zoo", *TOOLS}
    for name in imports(path.read_text()):
        if name.split(".")[0] == "hpcgeo" and not name.startswith("hpcgeo.plan.links"):
            assert name.split(".")[1] in allowed, name
        assert name.split(".")[0] != "torch"


@pytest.mark.parametrize(
    ("own", "text", "forbidden"),
    [
        ("data", "from hpcgeo.models.vit import ViT", ["hpcgeo.models.vit.ViT"]),
        ("data", "def f():\n    import hpcgeo.train.loop", ["hpcgeo.train.loop"]),
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


def folder_imports(root: str, top: str) -> dict[str, set[str]]:
    """Return which folders of a tree each of its folders imports from, by dotted name."""
    found: dict[str, set[str]] = {}
    names = {".".join(p.relative_to(ROOT / root).with_suffix("").parts) for p in modules(root)}
    for path in modules(root):
        own = ".".join(path.relative_to(ROOT / root).parent.parts)
        for name in imports(path.read_text()):
            if name.split(".")[0] != top:
                continue
            parts = name.split(".")[1:]
            while parts and ".".join(parts) not in names:
                parts.pop()
            other = ".".join(parts[:-1])
            if parts and other != own:
                found.setdefault(own, set()).add(other)
    return found


@pytest.mark.parametrize(("root", "top"), [("hpcgeo", "hpcgeo"), ("analysis", "hpcgeo_analysis")])
def test_folders_import_each_other_in_one_direction(root, top):
    """No ring, however long, between the folders of a tree; the top itself is none."""
    edges = folder_imports(root, top)
    for start in edges:
        reached, todo = set(), {other for other in edges[start] if other}
        while todo:
            reached |= todo
            todo = {o for name in todo for o in edges.get(name, ()) if o} - reached
        assert not start or start not in reached, start


@pytest.mark.parametrize(
    "path", modules("hpcgeo") + modules("analysis"), ids=lambda path: str(path.relative_to(ROOT))
)
def test_files_and_functions_are_short(path):
    text = path.read_text()
    assert len(text.splitlines()) <= LINES_OF_A_FILE
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert (node.end_lineno or 0) - node.lineno < LINES_OF_A_FUNCTION, node.name


@pytest.mark.parametrize("path", modules("hpcgeo"), ids=lambda path: str(path.relative_to(ROOT)))
def test_no_module_of_ours_is_imported_by_a_string(path):
    """Editors, mypy and the tests above see an import statement; tables of modules are named."""
    for node in ast.walk(ast.parse(path.read_text())):
        called = isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module")
        if called and isinstance(node.args[0], ast.Constant):
            assert not node.args[0].value.startswith("hpcgeo"), node.args[0].value
