# Everything a developer or CI runs. As root, on Debian 12 or 13, with git, make and python3.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

VENV := .venv
LAB := tests/lab/lab
PHASE := scripts/phase
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
export ANSIBLE_CONFIG := $(CURDIR)/ansible.cfg
export ANSIBLE_COLLECTIONS_PATH := $(CURDIR)/.ansible/collections
export PYTHONDONTWRITEBYTECODE := 1
export MOLECULE_GLOB := molecule/*/molecule.yml
# Molecule remembers what it has created; kept here, so that `make clean` makes it forget.
export MOLECULE_EPHEMERAL_DIRECTORY := $(CURDIR)/.cache/molecule

# Each lab of its own name; both may exist at the same time.
DEMO_LAB := demo
TEST_LAB := molecule
SCENARIO_LAB := scenarios
SCENARIOS := guard docker firewalld trace
# What takes long is left to `make test-full`.
export SHORT ?= -m "not full"

.PHONY: help setup demo test test-full without-hosts lint unit stores policy molecule integration scenarios bench bench-plan bench-runs bench-outage collection clean

help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

setup: $(VENV)/.complete collection ## Install the pinned tools into .venv and the Debian packages the lab needs
	@$(LAB) require
	@scripts/require_postgresql

$(VENV)/.complete: requirements-dev.txt
	@$(PHASE) "Install the pinned tools into $(VENV)" scripts/make_venv $(VENV) requirements-dev.txt

# The checkout finds itself as a collection through this link; ansible.cfg names the folder.
collection: .ansible/collections/ansible_collections/dn42/compose/galaxy.yml
.ansible/collections/ansible_collections/dn42/compose/galaxy.yml:
	@mkdir -p .ansible/collections/ansible_collections/dn42
	@ln -sfn ../../../.. .ansible/collections/ansible_collections/dn42/compose

demo: setup ## Build the lab, deploy two nodes that peer with a foreign network, show the result
	@DN42_LAB=$(DEMO_LAB) scripts/demo

# While hosts are built and deployed to, and wait for each other, a processor is free for what needs none of them.
test: setup ## Lint, unit tests, and everything on real hosts in the lab
	@$(MAKE) lint
	@$(MAKE) --jobs=2 molecule without-hosts

# The laboratory first: it unpacks the BIRDs that unit tests ask, too. Told when it is over, not between the lines of the other.
without-hosts: setup
	@mkdir -p .cache
	@echo "Meanwhile: routing policy, unit tests, stores; what they say follows when they are done (.cache/without-hosts.log)"
	@status=0; { $(MAKE) policy && $(MAKE) unit && $(MAKE) stores; } > .cache/without-hosts.log 2>&1 || status=$$?; cat .cache/without-hosts.log; exit $$status

test-full: export DN42_TEST_ROUNDS := 10
test-full: export SHORT :=
test-full: test scenarios bench ## What takes longer than CI allows: all rounds and whole tables of the tests, and the bench

lint: $(VENV)/.complete collection ## ruff, yamllint and ansible-lint (production profile)
	@$(PHASE) "Lint Python" ruff check .
	@$(PHASE) "Check the format of Python" ruff format --check .
	@$(PHASE) "Lint YAML" yamllint --strict .
	@$(PHASE) "Lint roles and playbooks" ansible-lint --strict

unit: $(VENV)/.complete collection ## Unit tests, no root and no lab needed
	@$(PHASE) "Unit tests" pytest tests/unit

stores: setup ## The address plan's stores: writers that are killed, a PostgreSQL server that is restarted
	@$(PHASE) "Stores of the address plan" pytest tests/stores $(SHORT)

policy: setup ## Routing policy: real BIRD against real BIRD in network namespaces
	@$(PHASE) "Routing policy" pytest tests/integration/bgp $(SHORT)

scenarios: setup ## All Molecule scenarios on one lab: the first one makes it, every one converges and verifies it
	@rm -rf $(MOLECULE_EPHEMERAL_DIRECTORY)
	@$(PHASE) "Molecule: clear what an earlier run left" env DN42_LAB=$(SCENARIO_LAB) molecule destroy -s $(firstword $(SCENARIOS))
	@$(PHASE) "Molecule $(firstword $(SCENARIOS)): the whole sequence" env DN42_LAB=$(SCENARIO_LAB) molecule test -s $(firstword $(SCENARIOS)) --destroy=never
	@for scenario in $(wordlist 2,99,$(SCENARIOS)); do \
	  $(PHASE) "Molecule $$scenario: converge" env DN42_LAB=$(SCENARIO_LAB) molecule converge -s $$scenario; \
	  $(PHASE) "Molecule $$scenario: idempotence" env DN42_LAB=$(SCENARIO_LAB) molecule idempotence -s $$scenario; \
	  $(PHASE) "Molecule $$scenario: verify" env DN42_LAB=$(SCENARIO_LAB) molecule verify -s $$scenario; \
	done
	@$(PHASE) "Molecule: destroy the lab" env DN42_LAB=$(SCENARIO_LAB) molecule destroy -s $(firstword $(SCENARIOS))

bench-runs: setup ## Speed of site.yml alone, on a lab of its own, as ratios to Ansible's floor
	@DN42_LAB=bench $(LAB) up --hosts fra1,hkg1,nrt1,syd1,peer1
	@$(PHASE) "Bench of runs" env DN42_LAB=bench python tests/bench/runs.py
	@DN42_LAB=bench $(LAB) down

bench-outage: setup ## How long traffic stops when a node dies, in a lab of three nodes
	@DN42_LAB=outage $(LAB) up --hosts fra1,hkg1,nrt1,peer1
	@$(PHASE) "Bench of outages" env DN42_LAB=outage python tests/bench/outage.py
	@DN42_LAB=outage $(LAB) down

bench: bench-plan bench-runs ## Speed of the address plan and of runs, as ratios in one run each; with its own lab, twenty minutes

bench-plan: setup ## Speed of the address plan alone
	@$(PHASE) "Bench of the address plan" python tests/bench/address_plan.py

molecule: setup ## Molecule's default scenario, then the integration tests on its converged lab
	@rm -rf $(MOLECULE_EPHEMERAL_DIRECTORY)
	@$(PHASE) "Molecule: clear what an earlier run left" env DN42_LAB=$(TEST_LAB) molecule destroy
	@$(PHASE) "Molecule: create, converge twice, verify" env DN42_LAB=$(TEST_LAB) molecule test --destroy=never
	@$(MAKE) integration
	@$(PHASE) "Molecule: destroy the lab" env DN42_LAB=$(TEST_LAB) molecule destroy

integration: setup ## Integration tests on a lab that Molecule has converged
	@$(PHASE) "Integration tests on real hosts" env DN42_LAB=$(TEST_LAB) pytest tests/integration -v --maxfail=5 --durations=25 $(SHORT) --ignore=tests/integration/bgp

clean: ## Remove everything that make has made: labs, images, environments, plans
	@if [ -x $(LAB) ]; then $(LAB) purge; fi
	@rm -rf $(VENV) .cache .pytest_cache .ruff_cache .hypothesis build inventories/demo/plan
	@find .ansible -mindepth 1 -maxdepth 1 ! -name collections -exec rm -rf {} + 2>/dev/null || true
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
