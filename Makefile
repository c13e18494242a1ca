# Two commands do everything: `make lab` runs Causeway in two regions, `make test` proves it.
# Both set up what they need in .venv; nothing is installed elsewhere.

ARGS ?=
VENV := .venv/bin

# Hundreds of processes are started by tests and by the laboratory: each module is compiled by the first of them.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup lab test nightly fuzz check format bench plots lock clean

help: ## this list
	@grep -hE '^[a-z]+:.*##' Makefile | sed -E 's/:.*## /\t/' | expand -t 10

setup: .venv/.installed ## make .venv with the pinned dependencies

.venv/.installed: pyproject.toml constraints.txt tools/setup
	@PYTHON="$(PYTHON)" tools/setup

lab: setup ## two regions, one conference, on this machine; ARGS="--for 20" ends by itself
	@$(VENV)/causeway lab $(ARGS)

check: setup ## format, lint, types, import rules, dependencies
	$(VENV)/ruff format --check .
	$(VENV)/ruff check .
	$(VENV)/mypy
	$(VENV)/lint-imports
	$(VENV)/deptry .

test: check ## everything: the checks above and all tests
	@tools/system-packages
	$(VENV)/pytest -n auto $(ARGS)

nightly: check ## all tests with more examples of each property, fuzzing, events over bad paths, 10,000 schedules; all new
	@tools/system-packages
	HYPOTHESIS_PROFILE=thorough $(VENV)/pytest -n auto $(ARGS)
	$(VENV)/python -m tests.fuzz --seconds 60
	$(VENV)/python bench/exactly_once.py --seed $${SEED:-$$(date +%s)}
	$(VENV)/python bench/soak.py --minutes 10 --no-plot --seed $${SEED:-$$(date +%s)}
	$(VENV)/python bench/simulate.py --schedules 10000 --seed $${SEED:-$$(date +%s)} --jobs $$(nproc)

fuzz: setup ## fuzz what reads a peer's bytes (faster with `pip install atheris`); ARGS="event_listener --seconds 600"
	$(VENV)/python -m tests.fuzz $(ARGS)

format: setup ## let ruff format and fix what it can
	$(VENV)/ruff format .
	$(VENV)/ruff check --fix .

bench: setup ## every benchmark; each ends with one line of JSON
	@for file in bench/[a-z]*.py; do $(VENV)/python $$file $(ARGS) || exit 1; done

plots: setup ## the plots and tables of docs/media.md, measured anew: two hours, in which nothing else should run
	@for each in lossy_link bottleneck tracks throughput soak; do \
		$(VENV)/python bench/$$each.py --out docs/plots $(ARGS) || exit 1; done

lock: ## compile constraints.txt anew (needs uv on PATH)
	uv pip compile --quiet --universal --python-version 3.11 --extra bench --extra geo --extra lab --extra test \
		--no-header --no-annotate --no-emit-index-url --no-emit-find-links pyproject.toml -o constraints.txt

clean: ## remove what setup and the tools made
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
