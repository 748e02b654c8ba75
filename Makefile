# Everything that the README names. Needs python3 (3.10 or newer) and make; the rest is installed into .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# The versions that the tests ran with; another Python takes the newest that pyproject.toml allows.
CONSTRAINTS := $(shell $(PYTHON) -c 'import sys; print("--constraint constraints.txt" * (sys.version_info[:2] == (3, 11)))')
PACKAGES := trainer export client demo model_repository

.PHONY: quickstart demo test lint types bench results clean

quickstart: $(VENV)/ready
	$(BIN)/python -m descry.demo.quickstart

# The quickstart's gallery on the search page, until Ctrl-C.
demo: $(VENV)/ready
	$(BIN)/python -m descry.demo.quickstart --page

test: lint types
	$(BIN)/python -m pytest -q

lint: $(VENV)/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# The folders are mapped to the namespace `descry`: mypy finds them through links.
types: $(VENV)/ready
	mkdir -p build/types/descry
	for package in $(PACKAGES); do ln -sfn ../../../$$package build/types/descry/$$package; done
	MYPYPATH=build/types $(BIN)/mypy -p descry.trainer -p descry.export -p descry.client -p descry.demo

bench: $(VENV)/ready
	$(BIN)/python bench/render.py
	$(BIN)/python bench/data.py
	$(BIN)/python bench/training.py
	$(BIN)/python bench/sal_step.py
	$(BIN)/python bench/metrics.py
	$(BIN)/python bench/encoder.py
	$(BIN)/python bench/parity.py
	$(BIN)/python bench/search.py
	$(BIN)/python bench/averaging.py
	$(BIN)/python bench/indexing.py

# What the curves of partial and mistaken descriptions compare.
PETA_RUNS := small_asmr_peta/weight=4 small_sal_peta/SAL small_comparison_peta/Multi-task_Transformer small_descry_peta/held_out
PETA_CURVES := $(PETA_RUNS:%=runs/sweeps/%-seed=0) --features --cache --distances fused --names "ASMR,SAL,Multi-task Transformer,Descry"

# Tables and figures of docs/results from the checkpoints of the sweeps; what was measured before is not measured again.
results: $(VENV)/ready
	$(BIN)/python -m descry.trainer.record $(wildcard runs/sweeps/small_*) --to docs/results/runs
	$(BIN)/python -m descry.trainer.comparison docs/results/comparison.yaml --features --cache
	$(BIN)/python -m descry.trainer.partial $(PETA_CURVES) --figure docs/results/partial_peta.png
	$(BIN)/python -m descry.trainer.mistaken $(PETA_CURVES) --figure docs/results/mistaken_peta.png
	$(BIN)/python -m descry.trainer.fairness_page docs/responsible_use.md docs/results/evaluations

$(VENV)/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet $(CONSTRAINTS) --editable ".[all]" --group dev
	# The search page is tested in a real browser; without it these tests are skipped, and say so.
	-test -x /usr/bin/chromedriver || { test "$$(id -u)" = 0 && apt-get update -qq && apt-get install -y -qq chromium chromium-driver; } >/dev/null 2>&1
	touch $@

clean:
	rm -rf $(VENV) build dist runs *.egg-info
