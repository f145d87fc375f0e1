# Set-up, demonstration, tests. `make help` lists the targets.

PYTHON ?= python3
VENV ?= .venv
# The version the tests run with; any torch >= 2.8 works. For AMD devices point pip at PyTorch's
# ROCm wheels (PIP_INDEX_URL) and say e.g. TORCH='torch >= 2.8'.
TORCH ?= torch==2.13.0
# A folder of your own images for the demonstration.
DATA ?=

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: help demo test test-slow lint docs golden release clean
help:
	@echo "make demo [DATA=folder]  from images to the scaling report, in minutes"
	@echo "make test                the tests (slurm-wlm, munge and openmpi-bin make more of them run)"
	@echo "make test-slow           those that take longest: whole jobs, tables of strategies"
	@echo "make lint                ruff, mypy, job scripts"
	@echo "make docs                the documentation site, in site/; broken links are errors"
	@echo "make golden              rewrite job scripts, the golden report and tables in docs; read the difference"
	@echo "make release VERSION=x   check tree, changelog and wheel, build it, tag; pushes nothing"
	@echo "make clean               remove $(VENV), demo/, site/ and what building leaves"

demo: $(VENV)/report.stamp
	PATH="$(abspath $(BIN)):$$PATH" ./demo.sh $(if $(DATA),"$(DATA)")

# Two cores are enough for two workers; a file of tests is one worker's.
PYTEST := $(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder --max-worker-restart 0

test: $(VENV)/dev.stamp
	$(PYTEST) -m "not slow"

test-slow: $(VENV)/dev.stamp
	$(PYTEST) -m slow

lint: $(VENV)/dev.stamp
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/hpcgeo jobs render --check

docs: $(VENV)/dev.stamp
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

golden: $(VENV)/dev.stamp
	$(BIN)/hpcgeo jobs render
	HPCGEO_GOLDEN=1 $(BIN)/pytest -q tests/analysis tests/cli/test_options.py tests/docs/test_reference.py

# Nothing is pushed: look at the tag, then `git push origin v$(VERSION)`. A build folder that was left
# would bring modules that are gone into the wheel.
release: $(VENV)/dev.stamp
	@test -n "$(VERSION)" || { echo "say which: make release VERSION=0.1.0"; exit 2; }
	@test -z "$$(git status --porcelain)" || { echo "commit or stash first"; exit 2; }
	@! git rev-parse -q --verify "v$(VERSION)" > /dev/null || { echo "v$(VERSION) is tagged already"; exit 2; }
	@for line in "hpcgeo/__init__.py:__version__ = \"$(VERSION)\"" "CITATION.cff:version: $(VERSION)" \
	  "CHANGELOG.md:## [$(VERSION)] - $$(date -u +%Y-%m-%d)"; do \
	  grep -qxF "$${line#*:}" "$${line%%:*}" || { echo "$${line%%:*}: no line '$${line#*:}'"; exit 2; }; \
	done
	$(MAKE) lint
	$(BIN)/pytest -q tests/test_package.py
	rm -rf build dist
	$(BIN)/python -m build --wheel
	git tag -a "v$(VERSION)" -m "hpcgeo $(VERSION)"

clean:
	rm -rf $(VENV) demo site build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +

# What is installed changes with these two files only: the tree itself is installed editable.
$(VENV)/torch.stamp:
	$(PYTHON) -m venv $(VENV)
# An old pip cannot install an editable tree without setup.py.
	$(PIP) install --upgrade pip
	$(PIP) install "$(TORCH)"
	touch $@

$(VENV)/report.stamp: $(VENV)/torch.stamp setup.cfg pyproject.toml
	$(PIP) install -e '.[report]'
	touch $@

$(VENV)/dev.stamp: $(VENV)/torch.stamp setup.cfg pyproject.toml
	$(PIP) install -e '.[dev]'
	touch $@
