# Every target works from a fresh clone: what it needs is built first and then remembered under .venv and build.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
VENV := .venv/.stamp
MODELS := models/.stamp
TEST_MODELS := build/test-models/.stamp
COMPILED := build/compiled/.stamp
MLFLOW_SERVER := build/mlflow-server/.stamp
NANNYML := build/nannyml/.stamp
TRITON_SERVER := build/tritonserver/.stamp
# What is tested once more as compiled: the guard against testing the sources again, and where compiled modules are.
COMPILED_TESTS := tests/unit/test_compiled.py $(addprefix tests/, batching protocol api layers predlog routing transport) \
	$(addprefix tests/acceptance/test_, datatypes.py infer.py refusals.py stream.py waiting.py)
WALKS := $(addprefix tests/acceptance/test_, drift_page.py registry_page.py rollouts_page.py)
# A file's tests share servers: they stay together. In order: the many short files of tests/unit fill up the end.
# One more than there are processors: many tests wait for a server or a clock.
PARALLEL := --numprocesses $(shell echo $$(($$(nproc) + 1))) --maxprocesses 4 --dist loadfile --no-loadscope-reorder
CONFIG ?= configs/demo.yaml
MONITOR ?= configs/monitor-demo.yaml
UV_VERSION := 0.13.9
COMPILE := build/lock/bin/uv pip compile --quiet --universal --python-version 3.11 --fork-strategy fewest \
	--generate-hashes --no-emit-index-url --custom-compile-command "make lock" $(UPGRADE)

EXTRAS := --extra object-store --extra mlflow --extra signing --extra monitor --extra nats --extra triton

# Tests start hundreds of processes: each would compile all it imports anew, for 2 s of a processor.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help venv models compiled run test test-sources test-walks test-compiled check soak oracle lock protos docs clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "%-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

venv: $(VENV) $(MODELS)  ## .venv from the lock, with the gateway command and the sample models

models: $(MODELS)  ## the sample models, under models/

compiled: $(COMPILED)  ## build/compiled: the package with its request path compiled by mypyc (needs a C compiler)

run: venv  ## serve the sample models on 8000 (HTTP), 8001 (gRPC), 8002 (metrics), 8003 (admin), 8010 (monitor); CONFIG=FILE for others
	exec $(BIN)/gateway serve --config $(CONFIG) --with-monitor $(MONITOR)

test:  ## every test, then part of them on the compiled package (needs a C compiler)
	$(MAKE) --jobs 3 venv $(TEST_MODELS) $(MLFLOW_SERVER) $(TRITON_SERVER)
	$(MAKE) --jobs 3 test-sources test-walks $(COMPILED)
	PYTHONPATH=$(CURDIR)/build/compiled $(BIN)/pytest $(PARALLEL) --compiled $(COMPILED_TESTS)

# Beside the compiler: tests wait for servers half of the time.
test-sources: venv $(TEST_MODELS) $(MLFLOW_SERVER) $(TRITON_SERVER)
	PYTHONPATH= $(BIN)/pytest $(PARALLEL) $(addprefix --ignore=, $(WALKS))

# Those that follow a page of the docs by the clock: they sleep nearly all of the time.
test-walks: venv $(MLFLOW_SERVER)
	PYTHONPATH= $(BIN)/pytest -q $(WALKS)

test-compiled: venv $(TEST_MODELS) $(MLFLOW_SERVER) $(TRITON_SERVER) $(COMPILED)  ## every test on the compiled package
	PYTHONPATH=$(CURDIR)/build/compiled $(BIN)/pytest $(PARALLEL) --compiled

check: venv  ## lint, format, types, generated files in step, fast tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python scripts/generate_protos.py --check
	$(BIN)/python scripts/generate_config_docs.py --check
	$(BIN)/pytest -q -m "not slow and not soak and not network" tests/unit

soak: venv $(TEST_MODELS)  ## the long counts: swaps, kills, fuzzing, leaks, loop lag; prints one table
	$(BIN)/python -m loadtests.soak

oracle: venv $(NANNYML)  ## compare estimated performance with NannyML's own, in an environment of its own (2 GB)
	$(BIN)/python -m loadtests.nannyml_oracle

lock: build/lock/bin/uv  ## resolve pyproject.toml into requirements/*.txt; UPGRADE=--upgrade takes newer releases
	$(COMPILE) pyproject.toml --extra cpu --extra otlp --extra dev -o requirements/dev.txt
	$(COMPILE) pyproject.toml -c requirements/dev.txt --extra cpu --extra otlp $(EXTRAS) -o requirements/cpu.txt
	$(COMPILE) pyproject.toml -c requirements/dev.txt --extra gpu --extra otlp $(EXTRAS) -o requirements/gpu.txt
	$(COMPILE) requirements/build.in -c requirements/dev.txt -o requirements/build.txt
	$(COMPILE) --no-deps requirements/filetype.in -o requirements/filetype.txt
	$(COMPILE) --no-deps requirements/test-models.in -o requirements/test-models.txt
	$(COMPILE) requirements/mlflow-server.in -o requirements/mlflow-server.txt
	$(COMPILE) --no-deps requirements/tritonserver.in -o requirements/tritonserver.txt
	$(COMPILE) --no-deps requirements/drift-data.in -o requirements/drift-data.txt
	$(COMPILE) requirements/nannyml.in -o requirements/nannyml.txt

protos: $(VENV)  ## generate src/gateway/_proto from protos/
	$(BIN)/python scripts/generate_protos.py

docs: $(VENV)  ## generate the configuration reference and its JSON Schema from the schema
	$(BIN)/python scripts/generate_config_docs.py

clean:  ## remove everything that is built
	rm -rf .venv build dist models .mypy_cache .ruff_cache .pytest_cache .hypothesis

build/lock/bin/uv: Makefile
	$(PYTHON) -m venv build/lock
	build/lock/bin/pip install --quiet uv==$(UV_VERSION)

# The package itself is installed without build isolation, so that nothing outside the lock is ever run.
$(VENV): requirements/dev.txt pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --no-compile --require-hashes -r requirements/dev.txt
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	touch $@

# Beside the editable install; PYTHONPATH=build/compiled puts it first.
# Others may be using it: the old one gives way when the new one is complete. What changes meanwhile is newer.
$(COMPILED): $(VENV) pyproject.toml hatch_build.py $(shell find src -name '*.py')
	rm -rf build/compiled.new
	mkdir -p build/compiled.new
	touch build/compiled.new/.stamp
	GATEWAY_COMPILE=1 nice -n 5 $(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --target build/compiled.new .
	rm -rf build/compiled
	mv build/compiled.new build/compiled

$(MODELS): $(VENV) scripts/wheels.py scripts/onnx_mlp.py scripts/fetch_magika.py scripts/make_digits.py \
		scripts/make_dense.py scripts/fetch_drift_data.py scripts/make_car_loan.py \
		requirements/filetype.txt requirements/drift-data.txt
	$(BIN)/python scripts/fetch_magika.py
	$(BIN)/python scripts/fetch_drift_data.py
	$(BIN)/python scripts/make_digits.py
	$(BIN)/python scripts/make_dense.py
	$(BIN)/python scripts/make_car_loan.py
	$(BIN)/gateway monitor profile --data build/car_loan/reference.parquet --model car_loan --version 1 \
		--task binary --score 'probabilities[1]' --output 'probabilities[0]' --label repaid --class 0 --class 1
	touch $@

$(MLFLOW_SERVER): scripts/mlflow_server_env.py requirements/mlflow-server.txt
	$(PYTHON) scripts/mlflow_server_env.py

$(NANNYML): scripts/nannyml_env.py scripts/mlflow_server_env.py requirements/nannyml.txt
	$(PYTHON) scripts/nannyml_env.py

$(TRITON_SERVER): scripts/tritonserver_env.py scripts/wheels.py requirements/tritonserver.txt
	$(PYTHON) scripts/tritonserver_env.py

$(TEST_MODELS): $(VENV) scripts/wheels.py scripts/fetch_test_models.py requirements/test-models.txt
	$(BIN)/python scripts/fetch_test_models.py
	touch $@
