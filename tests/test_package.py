"""The package: its list of parts, its version, and that a wheel holds all it needs."""

import configparser
import importlib.util
import os
import re
import subprocess
import sys
import venv
from pathlib import Path

import pytest

import hpcgeo

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def setup_cfg() -> configparser.ConfigParser:
    parsed = configparser.ConfigParser()
    parsed.read(ROOT / "setup.cfg")
    return parsed


def test_the_packages_listed_are_the_packages_there(setup_cfg):
    there = {
        ".".join(path.parent.relative_to(ROOT).parts).replace("analysis", "hpcgeo_analysis", 1)
        if path.is_relative_to(ROOT / "analysis")
        else ".".join(path.parent.relative_to(ROOT).parts)
        for folder in ("hpcgeo", "analysis")
        for path in (ROOT / folder).rglob("__init__.py")
    }
    assert set(setup_cfg["options"]["packages"].split()) == there
    code = {
        path.parent for folder in ("hpcgeo", "analysis") for path in (ROOT / folder).rglob("*.py")
    }
    assert all((folder / "__init__.py").exists() for folder in code)


def test_data_files_are_listed(setup_cfg):
    """Every file in the tree that is no code is matched by a pattern of its package."""
    listed = setup_cfg["options.package_data"]
    for folder in ("hpcgeo", "analysis"):
        for path in (ROOT / folder).rglob("*"):
            if not path.is_file() or path.suffix in (".py", ".pyc"):
                continue
            package = ".".join(path.parent.relative_to(ROOT).parts)
            package = re.sub(r"^analysis", "hpcgeo_analysis", package)
            patterns = listed.get(package, "").split()
            assert any(path.match(pattern) for pattern in patterns), path


def test_the_version():
    assert re.fullmatch(r"\d+\.\d+\.\d+(\.dev\d+|rc\d+)?", hpcgeo.__version__)
    said = subprocess.check_output([Path(sys.executable).with_name("hpcgeo"), "--version"])
    assert said.decode().strip() == f"hpcgeo {hpcgeo.__version__}"


def test_no_fact_stands_in_two_files():
    """pyproject.toml has no [project]: metadata and dependencies stand in setup.cfg."""
    assert "[project]" not in (ROOT / "pyproject.toml").read_text()


@pytest.mark.slow
def test_a_wheel_works_from_an_empty_folder(tmp_path):
    """Built from a copy: building in the tree would leave its build folder there."""
    source, wheels, empty = tmp_path / "source", tmp_path / "wheels", tmp_path / "empty"
    empty.mkdir()
    files = subprocess.check_output(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, text=True
    ).split("\n")
    for name in filter(None, files):
        if (ROOT / name).is_file() and not name.startswith(("profiles/", "tests/", "data/")):
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())

    def pip(*words: object) -> None:
        command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *map(str, words)]
        subprocess.run(command, check=True, capture_output=True, timeout=240)

    pip("wheel", "--no-deps", "--no-build-isolation", "-w", wheels, source)
    [wheel] = wheels.glob("hpcgeo-*.whl")
    # A fresh environment that sees this one's dependencies, but not this checkout.
    venv.create(tmp_path / "venv", with_pip=False)
    site = next((tmp_path / "venv/lib").glob("python*/site-packages"))
    pip("install", "--no-deps", "--target", site, wheel)
    outside = [path for path in sys.path if "-packages" in path]
    environ = {
        name: value for name, value in os.environ.items() if not name.startswith("PYTHON")
    } | {"PYTHONPATH": os.pathsep.join([str(site), *outside])}
    program = (
        "import hpcgeo, hpcgeo_analysis; from hpcgeo.config import recipes; "
        "from hpcgeo.launch.scripts import jobs, render; [render(job) for job in jobs().values()]; "
        "print(hpcgeo.__file__, hpcgeo_analysis.__file__, len(recipes()))"
    )
    python = tmp_path / "venv/bin/python"

    def run(*words: str) -> str:
        return subprocess.check_output(
            [python, *words], cwd=empty, env=environ, text=True, timeout=120
        )

    one, two, count = run("-c", program).split()
    assert one.startswith(str(site)) and two.startswith(str(site)) and int(count) > 0
    for kind in ("models", "machines", "strategies", "recipes", "sensors", "readers"):
        assert run("-m", "hpcgeo", "list", kind)
    assert "mae_vit_tiny" in run("-m", "hpcgeo", "list", "recipes")
    assert not list(empty.iterdir())


@pytest.mark.parametrize("path", sorted((ROOT / "benchmarks").glob("*.py")), ids=lambda p: p.stem)
def test_a_benchmark_knows_the_names_of_what_it_measures(path):
    spec = importlib.util.spec_from_file_location(f"benchmark_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look there
    spec.loader.exec_module(module)
    assert callable(module.main)
