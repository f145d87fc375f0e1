"""Nothing that may come from a stranger is unpickled or run."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

#: Calls and modules that run what a file says, and options that switch it on.
FORBIDDEN = {
    *("pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "torch.load"),
    *("torch.jit.load", "torch.hub", "torch.package", "yaml.load", "yaml.load_all", "yaml.Loader"),
    *("yaml.unsafe_load", "yaml.full_load", "yaml.UnsafeLoader", "yaml.FullLoader", "eval", "exec"),
    *("numpy.load", "np.load", "pandas.read_pickle", "pd.read_pickle", "read_pickle"),
    *("torch.distributed.checkpoint", "allow_pickle", "runpy", "trust_remote_code"),
}

#: Where one of them is meant, and why it is safe there.
ALLOWED = {
    # Plans who reads and writes what; what lies on the disk is plain bytes and JSON.
    "hpcgeo/checkpoint/checkpoints.py": {"torch.distributed.checkpoint"},
    "hpcgeo/checkpoint/planning.py": {"torch.distributed.checkpoint"},
    # With allow_pickle=False: an array of objects is an error.
    "hpcgeo/data/readers/collection.py": {"np.load", "allow_pickle"},
    "hpcgeo/data/readers/sustainbench/land_cover.py": {"np.load", "allow_pickle"},
    "hpcgeo/data/readers/benchmarks/fuel_moisture.py": {"np.load", "allow_pickle"},
    "hpcgeo/evaluate/cache.py": {"np.load", "allow_pickle"},
    "hpcgeo/maps/mapper.py": {"np.load", "allow_pickle"},
    # An unpickler to which every class is an inert value.
    "hpcgeo/data/readers/benchmarks/inert.py": {"pickle"},
    # With weights_only=True: tensors and plain values; the error of anything else.
    "hpcgeo/weights/initial.py": {"pickle", "torch.load"},
    # Names of state dicts; reads no file.
    "hpcgeo/parallel/native.py": {"torch.distributed.checkpoint"},
    "hpcgeo/parallel/segment.py": {"torch.distributed.checkpoint"},
}


def names(tree: ast.AST) -> set[str]:
    """Return every dotted name, imported module and keyword that a module uses."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Attribute | ast.Name):
            found.add(ast.unparse(node))
        elif isinstance(node, ast.keyword) and node.arg:
            found.add(node.arg)
    return found


def forbidden(text: str) -> set[str]:
    """Return what of `FORBIDDEN` a module uses."""
    used = names(ast.parse(text))
    return {
        word
        for word in FORBIDDEN
        if any(name == word or name.startswith(f"{word}.") for name in used)
    }


def modules() -> list[Path]:
    return sorted(path for room in ("hpcgeo", "analysis") for path in (ROOT / room).rglob("*.py"))


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_is_unpickled(path: Path) -> None:
    allowed = ALLOWED.get(str(path.relative_to(ROOT)), set())
    text = path.read_text()
    assert forbidden(text) <= allowed
    assert text.count("np.load(") == text.count("allow_pickle=False")
    assert text.count("torch.load(") == text.count("weights_only=True")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("import torch\ntorch.load(path)", {"torch.load"}),
        ("from torch import load", {"torch.load"}),
        ("def f():\n    import pickle", {"pickle"}),
        ("numpy.load(path, allow_pickle=True)", {"numpy.load", "allow_pickle"}),
        ("yaml.load(text, Loader=yaml.Loader)", {"yaml.load", "yaml.Loader"}),
        ("from torch.distributed.checkpoint import state", {"torch.distributed.checkpoint"}),
        ("yaml.safe_load(text)\nmodel.load(state)\ntorch.loaded", set()),
    ],
)
def test_the_test_sees_it(text: str, found: set[str]) -> None:
    assert forbidden(text) == found
