# `make demo` and `make test` set up everything they need below this folder.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test bench check docs trust coverage lock clean

demo: $(VENV)/installed
	$(BIN)/paramtrans run examples/mnist_conv_to_attn.toml

test: $(VENV)/installed
	$(BIN)/python -m pytest -n auto

# Ratios against what one would do instead, into docs/results/ and docs/benchmarks.md; QUICK=1 takes under five minutes.
bench: $(VENV)/installed
	$(BIN)/python -m benchmarks $(if $(QUICK),--quick)
	$(BIN)/python -m benchmarks.growth $(if $(QUICK),--steps 5)
	$(BIN)/python docs/render_benchmarks.py

# Style, types and import layers.
check: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pip check

# The documentation site, in site/.
docs: $(VENV)/installed
	$(BIN)/mkdocs build --strict --quiet

$(VENV)/installed: requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-deps --require-hashes -r requirements.lock  # the lock is complete
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

# What docs/trust.md promises, tried: one JSON line a check. `make trust FULL=1` tries as often as the document says.
trust: $(VENV)/installed
	OMP_NUM_THREADS=1 $(BIN)/python -m trust $(if $(FULL),--full)

# Lines and branches that the tests run.
coverage: $(VENV)/installed
	$(BIN)/python -m pytest -n auto --cov --cov-report=term:skip-covered

# Resolve the dependencies anew, for every platform, with hashes and without addresses. Needs uv.
lock:
	uv pip compile pyproject.toml --group dev --universal --python-version 3.11 --generate-hashes \
		--no-emit-index-url --no-header --no-annotate --constraint constraints.txt --output-file requirements.lock

clean:
	rm -rf $(VENV) build dist site
