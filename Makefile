# `make demo` and `make test` set up everything they need below this folder.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/$(if $(filter Windows_NT,$(OS)),Scripts,bin)
# Files go to workers whole, as what their tests share is made once for each, and in order: the long ones come first.
PYTEST := -m pytest -n auto --dist loadscope --no-loadscope-reorder
# Tests of single parts, and every component once against what its kind promises.
FAST := -m "not (slow or pipeline or thorough or kernels or docs or distributed or browser)" tests/unit tests/testing plugins

.PHONY: demo test test-fast test-slow test-wheel bench check docs trust coverage lock plugins clean

demo: $(VENV)/installed
	$(BIN)/paramtrans run examples/mnist_conv_to_attn.toml

# All but sweeps over zoos, random networks and full counts, which `make test-slow` runs.
test: $(VENV)/installed
	$(BIN)/python $(PYTEST) -m "not slow"

test-fast: $(VENV)/installed
	$(BIN)/python $(PYTEST) $(FAST)

test-slow: $(VENV)/installed
	$(BIN)/python $(PYTEST) -m slow

# The fast tests against the wheel, outside the checkout: make test-wheel ON=python3.13, or ON=others for those of pyenv.
test-wheel: $(VENV)/installed
	$(BIN)/python .ci/wheel.py $(if $(WITHIN),--within $(WITHIN)) $(or $(ON),$(PYTHON)) $(FAST)

# Ratios against what one would do instead, into docs/results/ and docs/benchmarks.md; QUICK=1 takes under five minutes.
bench: $(VENV)/installed
	$(BIN)/python -m benchmarks $(if $(QUICK),--quick)
	$(BIN)/python -m benchmarks.growth $(if $(QUICK),--steps 5)
	$(BIN)/python -m benchmarks.translation $(if $(QUICK),--images 16 --only ResNet-50)
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
	$(BIN)/python $(PYTEST) --cov --cov-report=term:skip-covered

# Resolve the dependencies anew, for every platform, with hashes and without addresses. Needs uv.
lock:
	uv pip compile pyproject.toml --group dev --universal --python-version 3.11 --generate-hashes \
		--no-emit-index-url --no-header --no-annotate --constraint constraints.txt --output-file requirements.lock

# The lists of first-party plugins in pyproject.toml, from the folders below plugins/.
plugins:
	$(PYTHON) plugins/lists.py

clean:
	rm -rf $(VENV) build dist site
