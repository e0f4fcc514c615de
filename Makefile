# The commands of this project. `make` lists them.
SHELL := /bin/bash
BIN   := .venv/bin

.PHONY: help setup setup-test demo check lint types unit interop qemu test bench-boot conformance \
        crashtest lock docs clean

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

bench-boot: setup-test ## the same boot with dnsmasq + tgt and with us, in turn
	@$(BIN)/python tests/bench/bench_boot.py

conformance: setup-test ## libiscsi's suite against us and against tgt; writes docs/conformance.md
	@$(BIN)/python tests/conformance/conformance.py

crashtest: setup-test ## thousands of simulated power cuts under a disk; SEED=n for others
	@$(BIN)/python tests/crash/crashtest.py $(if $(SEED),--seed $(SEED))

docs: ## write the generated parts of README.md and docs/ anew
	$(BIN)/python docs/generate.py

lock: ## resolve requirements.lock anew (needs pip-tools in PATH)
	pip-compile -q --generate-hashes --no-emit-index-url --no-emit-find-links --no-header \
	    --strip-extras --allow-unsafe --extra dev --annotation-style=line -o requirements.lock pyproject.toml

clean: ## remove the virtual environment and caches (golden images stay)
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist *.egg-info
