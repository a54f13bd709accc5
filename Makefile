# Two commands on a machine with Python 3.11 or later and nothing else: make demo, make test.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready
export TOKENIZERS_PARALLELISM := false
# Where this is set, every process that a test starts would compile koinize again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test check cases tiny clean attacks dist sbom site

# torch is installed on its own first, so that the build pinned in constraints.txt is the one used.
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q -c constraints.txt torch
	$(BIN)/pip install -q -c constraints.txt -e '.[demo,dev]'
	touch $(READY)

# The main job: five languages, one joint training, a release; then Japanese gets more rows, one branch is trained and
# merged, and the gate says whether any language lost. Exit code 3 of `promote` is such an answer and no failure.
JAPANESE := demo/data/ja.train.jsonl
demo: $(READY)
	test -f demo/koinize.yaml || $(BIN)/koinize init --example reviews demo
	$(BIN)/koinize run demo
	@test $$(wc -l < $(JAPANESE)) -gt 20 || $(BIN)/koinize promote demo
	@test $$(wc -l < $(JAPANESE)) -gt 20 || $(BIN)/koinize language update ja --append demo/later/ja.jsonl --spec demo
	$(BIN)/koinize plan demo
	$(BIN)/koinize run demo
	$(BIN)/koinize promote demo || test $$? -eq 3
	$(BIN)/koinize report demo

# The same on a generated model of a few thousand parameters.
tiny: $(READY)
	rm -rf .cache/tiny
	$(BIN)/koinize init --example tiny .cache/tiny
	$(BIN)/koinize run .cache/tiny
	$(BIN)/koinize report .cache/tiny

# Attacks that were kept beside the checkout, a line each; nothing where there are none.
attacks: $(READY)
	test ! -d ../shared/attacks || $(BIN)/python tests/attacks.py ../shared/attacks $(BIN)

# Two products that share cores would wait for each other, so each process has one thread.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses auto --maxprocesses 4

# The slow tests of a file are one worker's, which makes what they share once: one cluster of Ray, say.
# (xdist 3.8 does not tell groups to pytest 9.2, so `--dist loadgroup` would part them.)
test: check
	$(PYTEST) --dist loadfile -m slow

# What to run before every commit. What takes more than a third of a second or kills processes is
# left to `test`. mypy has one core for itself, so it goes beside the tests.
check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	@$(BIN)/mypy & types=$$!; $(PYTEST) --dist worksteal -m 'not slow'; tests=$$?; wait $$types && exit $$tests

# Inputs on which koinize once went wrong, where they lie beside this checkout: one line for each.
cases: $(READY)
	$(BIN)/python benchmarks/cases.py ../shared/cases $(BIN)

# The wheel and the sdist; docs/releasing.md says what comes before and after.
dist: $(READY)
	rm -rf dist
	$(BIN)/python -m hatchling build

# What an environment with this wheel holds, as a bill of materials. The tool has an environment of its own.
SBOM := build/sbom
sbom: dist
	rm -rf $(SBOM)
	$(PYTHON) -m venv $(SBOM)/inside
	$(SBOM)/inside/bin/pip install -q dist/*.whl
	$(PYTHON) -m venv $(SBOM)/tool
	$(SBOM)/tool/bin/pip install -q 'cyclonedx-bom>=7.5,<8'
	$(SBOM)/tool/bin/cyclonedx-py environment --pyproject pyproject.toml --output-file dist/koinize.cdx.json $(SBOM)/inside

# The documentation as pages that need no network; links that lead nowhere end it. To read and to search it:
# python -m http.server --directory build/site
ZENSICAL ?= build/zensical/bin/zensical
site: $(ZENSICAL)
	rm -rf build/pages build/site
	mkdir -p build/pages
	git ls-files '*.md' LICENSE docs benchmarks/results examples constraints.txt | xargs cp --parents -t build/pages
	$(ZENSICAL) build --clean --strict

build/zensical/bin/zensical:
	$(PYTHON) -m venv build/zensical
	build/zensical/bin/pip install -q 'zensical==0.0.73'

clean:
	rm -rf $(VENV) .cache demo build dist
