"""The layers: a module imports its own package and strictly lower ones, nothing else of ours."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

#: Below the ground: what every layer may use.
TOOLS = {
    "",
    "errors",
    "files",
    "quoting",
    "tables",
    "log",
    "phases",
    "options",
    "job_options",
    "json_lines",
    "measured",
    "variables",
    "stacks",
    "swin",
}
LAYERS = {
    **dict.fromkeys(["", "errors", "files", "quoting", "facts", "recipes", "options"], -3),
    "stacks": -2,
    **dict.fromkeys(
        ["tables", "log", "phases", "job_options", "json_lines", "measured", "variables", "swin"],
        -1,
    ),
    **dict.fromkeys(
        ["sensors", "zoo", "machines", "strategies", "records", "scores", "optimizers"], 0
    ),
    **dict.fromkeys(["models", "pictures"], 1),
    "kinds": 2,
    "data": 3,
    "objectives": 4,
    "config": 5,
    **dict.fromkeys(["plan", "parallel", "launch"], 6),
    "checkpoint": 7,
    "weights": 8,
    "workloads": 9,
    "train": 10,
    **dict.fromkeys(["evaluate", "profiling"], 11),
    **dict.fromkeys(["sweep", "maps"], 12),
    "study": 13,
    "cli": 14,
    "__main__": 15,
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
        "hpcgeo.train.preflight",
    ),
    *(f"hpcgeo.plan.{path.stem}" for path in sorted((ROOT / "hpcgeo/plan").glob("[!_]*.py"))),
    *(f"hpcgeo.launch.{path.stem}" for path in sorted((ROOT / "hpcgeo/launch").glob("[!_]*.py"))),
    *(f"hpcgeo.launch.schedulers.{name}" for name in ("scheduler", "slurm", "table")),
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


#: Of the planner: what a file of measured links says, and what a map of a machine shows.
PLANS = ("hpcgeo.plan.links", "hpcgeo.plan.sizes")


@pytest.mark.parametrize("path", modules("analysis"), ids=lambda path: path.name)
def test_the_report_reads_records_and_facts_only(path):
    allowed = {"machines", "records", "scores", "strategies", "zoo", *TOOLS}
    for name in imports(path.read_text()):
        if name.split(".")[0] == "hpcgeo" and not name.startswith(PLANS):
            assert name.split(".")[1] in allowed, name
        assert name.split(".")[0] != "torch"


@pytest.mark.parametrize(
    ("own", "text", "forbidden"),
    [
        ("models", "from hpcgeo.data.sample import Sample", ["hpcgeo.data.sample.Sample"]),
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


def test_a_public_class_stands_once():
    """One word has one meaning."""
    found: dict[str, list[str]] = {}
    for path in (*modules("hpcgeo"), *modules("analysis")):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                found.setdefault(node.name, []).append(str(path.relative_to(ROOT)))
    assert not {name: paths for name, paths in found.items() if len(paths) > 1}


@pytest.mark.parametrize("module", INSTANT)
def test_the_ground_is_instant(module):
    program = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0, f"{module}: torch"


def package(path: Path, top: Path) -> str:
    """Return the node of a module among the packages of a tree, as a dotted name.

    That is its folder; a module beside subfolders is a node of its own.
    """
    mixed = any(path.parent.glob("*/*.py"))
    return ".".join((path.with_suffix("") if mixed else path.parent).relative_to(top).parts)


def package_imports(root: str, name: str) -> dict[str, set[str]]:
    """Return which nodes of a tree each of its nodes imports from."""
    top = ROOT / root
    nodes = {
        ".".join(path.relative_to(top).with_suffix("").parts): package(path, top)
        for path in modules(root)
    }
    found: dict[str, set[str]] = {own: set() for own in nodes.values()}
    for path in modules(root):
        own = package(path, top)
        for imported in imports(path.read_text()):
            parts = imported.split(".")
            while parts[0] == name and ".".join(parts[1:]) not in nodes and len(parts) > 1:
                parts.pop()
            other = nodes.get(".".join(parts[1:]), own)
            found[own] |= {other} - {own}
    return found


@pytest.mark.parametrize(("root", "name"), [("hpcgeo", "hpcgeo"), ("analysis", "hpcgeo_analysis")])
def test_packages_import_each_other_in_one_direction(root, name):
    """No ring, however long, between the packages of a tree."""
    edges = package_imports(root, name)
    for start in edges:
        reached, todo = set(), edges[start]
        while todo:
            reached |= todo
            todo = set().union(*(edges[node] for node in todo)) - reached
        assert start not in reached, start


def length(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Return the lines of a function's body, its docstring left out."""
    body = function.body[1:] if ast.get_docstring(function) else function.body
    return (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0


@pytest.mark.parametrize(
    "path", modules("hpcgeo") + modules("analysis"), ids=lambda path: str(path.relative_to(ROOT))
)
def test_files_and_functions_are_short(path):
    text = path.read_text()
    assert len(text.splitlines()) <= LINES_OF_A_FILE
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert length(node) <= LINES_OF_A_FUNCTION, node.name


@pytest.mark.parametrize("path", modules("hpcgeo"), ids=lambda path: str(path.relative_to(ROOT)))
def test_no_module_of_ours_is_imported_by_a_string(path):
    """Editors, mypy and the tests above see an import statement; tables of modules are named."""
    for node in ast.walk(ast.parse(path.read_text())):
        called = isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module")
        if called and isinstance(node.args[0], ast.Constant):
            assert not node.args[0].value.startswith("hpcgeo"), node.args[0].value
