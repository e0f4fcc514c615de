# The commands of this project. `make` lists them.
SHELL := /bin/bash
BIN   := .venv/bin

.PHONY: help setup setup-test demo check lint types unit interop qemu test bench bench-boot bench-net bench-storm conformance \
        crashtest killtest fuzz lock docs clean

help: ## this list
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup:
	@.ci/setup run

setup-test:
	@.ci/setup run test

demo: setup ## two diskless machines, BIOS and UEFI, from one golden image
	@$(BIN)/netboot lab demo

check: setup-test lint types unit ## fast: lint, types, unit tests

lint:
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types:
	$(BIN)/mypy

unit:
	$(BIN)/pytest -m "not interop and not qemu" tests

interop: ## foreign programs judge us
	$(BIN)/pytest -m "interop and not qemu" tests

qemu: ## real guests boot
	$(BIN)/pytest -m qemu qemu-tests

test: setup-test lint types ## everything CI runs
	$(BIN)/pytest tests qemu-tests

bench: setup-test ## the data path beside tgt and the limit of the sockets; writes docs/performance.md
	@$(BIN)/python -m tests.bench.bench_data $(if $(ROUNDS),--rounds $(ROUNDS))

bench-boot: setup-test ## the same boot with dnsmasq + tgt and with us, in turn
	@$(BIN)/python -m tests.bench.bench_boot

bench-net: setup-test ## DHCP, TFTP and HTTP beside dnsmasq, Kea, tftpd-hpa and nginx; ROUNDS=n
	@$(BIN)/python -m tests.bench.bench_net $(if $(ROUNDS),--rounds $(ROUNDS))

bench-storm: setup-test ## a recorded boot from 1 to 1000 clients at once; writes docs/storm.md
	@$(BIN)/python -m tests.bench.bench_storm

conformance: setup-test ## libiscsi's suite against us and against tgt; writes docs/conformance.md
	@$(BIN)/python -m tests.conformance.conformance

crashtest: setup-test ## 10,000 simulated power cuts under a disk; SEED=n for others
	@$(BIN)/python -m tests.crash.crashtest $(if $(SEED),--seed $(SEED))

KILLS := 20
killtest: setup-test ## KILLS=n kills of each of our processes under a guest that writes; SEED=n
	@$(BIN)/python -m tests.kill.killtest --kills $(KILLS) $(if $(SEED),--seed $(SEED))

SECONDS := 60
# Where atheris has no build for this Python or machine, our own mutations do without it.
fuzz: setup-test ## SECONDS=n for each target: mutated input, judged
	@$(BIN)/python -c 'import atheris' 2>/dev/null || $(BIN)/pip --disable-pip-version-check -q \
	    install --require-hashes -r fuzz.lock || echo "fuzz: without atheris, no coverage guides it"
	@guided=$$($(BIN)/python -c 'import atheris; print("--guided")' 2>/dev/null); \
	    $(BIN)/python -m tests.fuzz.run --seconds=$(SECONDS) $$guided $(TARGETS)

docs: ## write the generated parts of README.md and docs/ anew
	$(BIN)/python docs/generate.py

lock: ## resolve requirements.lock anew (needs pip-tools in PATH)
	pip-compile -q --generate-hashes --no-emit-index-url --no-emit-find-links --no-header \
	    --strip-extras --allow-unsafe --extra dev --annotation-style=line -o requirements.lock pyproject.toml
	pip-compile -q --generate-hashes --no-emit-index-url --no-emit-find-links --no-header \
	    --annotation-style=line -o fuzz.lock - < <($(BIN)/python -c 'import tomllib; print(*tomllib.load( \
	    open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["fuzz"], sep="\n")')

clean: ## remove the virtual environment and caches (golden images stay)
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist *.egg-info
