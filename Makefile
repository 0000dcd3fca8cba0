# `make demo`, `make test` and `make check` need python3 >= 3.11 and make; the first run installs into .venv.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
DEMO ?= demo

# Python keeps what it compiled, wherever the environment forbids it: a process that imports torch takes half the CPU then.
export PYTHONDONTWRITEBYTECODE :=

ROOM ?=
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist worksteal

.PHONY: demo demo-text test slow ecosystem dist python lint check format docs bench torture studies clean

demo: $(READY)
	$(BIN)/kdcache demo $(DEMO)

# The demo on the text of Debian's package bible-kjv-text, two to three minutes on two quiet cores.
demo-text: $(READY)
	mkdir -p $(DEMO)-text
	bible -f gen1:1-rev22:21 > $(DEMO)-text/kjv.txt
	$(BIN)/kdcache demo $(DEMO)-text/demo --text $(DEMO)-text/kjv.txt

# What is fast and states a promise; `make test ROOM=store` runs one room, slow or not. PYTEST_FLAGS go to pytest.
test: $(READY)
	$(PYTEST) $(if $(ROOM),tests/$(ROOM),-m "not slow") $(PYTEST_FLAGS)

slow: $(READY)
	$(PYTEST) -m slow $(PYTEST_FLAGS)

# Real datasets, webdataset, transformers, timm, open_clip, Lightning and accelerate, in an environment of their own.
ecosystem: $(READY)
	$(BIN)/uv venv --quiet --allow-existing --python $(BIN)/python .venv-ecosystem
	$(BIN)/uv pip install --quiet --python .venv-ecosystem/bin/python --constraint constraints.txt --editable '.[ecosystem]'
	OMP_NUM_THREADS=1 .venv-ecosystem/bin/python -m pytest -n auto --dist worksteal -m ecosystem tests/ecosystem $(PYTEST_FLAGS)

# sdist and wheel of the version that the last tag names, checked as an index checks them.
dist: $(READY)
	rm -rf dist
	$(BIN)/python -m build --quiet --outdir dist
	$(BIN)/twine check --strict dist/*

# The wheel in an empty environment of another Python, its demo there, and then the fast tests on these files:
# make python PYTHON=python3.13
OTHER = .venv-$(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')
python: dist
	$(BIN)/uv venv --quiet --clear --python $(PYTHON) $(OTHER)
	$(BIN)/uv pip install --quiet --python $(OTHER)/bin/python --constraint constraints.txt dist/*.whl
	cd $(OTHER) && bin/kdcache demo demo
	$(BIN)/uv pip install --quiet --python $(OTHER)/bin/python --constraint constraints.txt --editable '.[test]'
	OMP_NUM_THREADS=1 $(OTHER)/bin/python -m pytest -n auto -m "not slow" $(PYTEST_FLAGS)

lint: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

check: lint docs test slow ecosystem

# The site of docs/, into site/: open site/index.html. Any warning, such as a link that leads nowhere, fails.
docs: $(READY)
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[dev,docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

bench: $(READY)
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[dev,bench]'
	$(BIN)/python -m tests.benchmarks --out docs/performance.md $(BENCH)
	$(BIN)/python -m tests.benchmarks.scale --rewrite
	$(BIN)/python -m tests.benchmarks.pictures
	$(BIN)/python -m tests.benchmarks.card --write README.md

# Every study on its published seeds, two at a time, six of them on letters too, and their pages; an hour and a half on two cores.
STUDIES ?= $(shell $(BIN)/python -c 'from kdcache.pipelines.studies.catalogue import STUDIES; print(*STUDIES)')
ON_GLYPHS ?= stanton cho yang wang_checkpoints tang mueller
GLYPHS = --folder studies/glyphs --data kdcache.pipelines.studies.glyphs:glyphs
studies: $(READY)
	for name in $(STUDIES); do $(BIN)/kdcache study $$name --jobs 2 || exit; done
	for name in $(ON_GLYPHS); do $(BIN)/kdcache study $$name --jobs 2 $(GLYPHS) || exit; done
	mkdir -p docs/figures/studies/glyphs
	cp studies/*.json studies/*.png docs/figures/studies/
	cp studies/glyphs/*.json studies/glyphs/*.png docs/figures/studies/glyphs/
	$(BIN)/kdcache study --page docs/studies.md --folder docs/figures/studies
	$(BIN)/python -m tests.benchmarks.card --write README.md

torture: $(READY)
	$(BIN)/python -m tests.torture

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "kdcache needs Python 3.11 or newer")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[dev]'
	touch $(READY)

clean:
	rm -rf .venv .venv-* demo build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
