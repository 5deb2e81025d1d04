# Two commands matter: `make run` and `make test`. `make help` lists the rest.
SHELL := bash
STATE ?= .everhold
export PATH := $(CURDIR)/.cache/bin:$(PATH)
export SQLX_OFFLINE ?= true

.PHONY: help run test bench profile million fault fuzz deps deps-test build dist portal lint fmt sqlx openapi clean

help: ## This list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

run: deps build portal ## Install what is missing, build, start, back up and restore something real; ONCE=1 exits then
	@target/release/everhold demo --state $(STATE) --agent target/release/everhold-agent $(if $(ONCE),--once)

deps: ## Install what `make run` needs
	@scripts/deps.sh run

deps-test: deps
	@scripts/deps.sh test

build: ## Release build of the server and the agent
	cargo build --release --locked -p everhold -p everhold-agent

dist: ## The build that is shipped: everything optimised and linked as one; a quarter of an hour
	cargo build --profile dist --locked -p everhold -p everhold-agent

portal: ## Build the portal (skipped, saying so, without Node)
	@scripts/portal.sh

test: ## The whole suite
	@scripts/test.sh

bench: $(if $(HELP),,deps dist) ## Everhold beside restic, rustic and Borg into docs/benchmarks.md; HELP=1 says how to run a part
	@scripts/bench.sh

profile: $(if $(HELP),,deps dist) ## Where the time goes in each work, by perf, into docs/performance.md; needs perf, zstd and openssl
	@scripts/bench.sh profile

million: deps dist ## A million files through backup and restore, each killed in its middle first; WORK=DIR has 12 GB of room
	@python3 -B tests/bench/million.py --work "$(or $(WORK),$(CURDIR)/.dev/million)"

fault: ## Breaks every operation at a sample of its points; LONG=1 at more than a thousand; BUGS=1 plants bugs
	@LONG=$(LONG) BUGS=$(BUGS) scripts/fault.sh

fuzz: ## Fuzzes every parser of hostile bytes for a minute each; FOR=600 for longer
	@scripts/fuzz.sh $(or $(FOR),60)

lint: ## Formatting, clippy, query freshness
	cargo fmt --all --check
	scripts/sqlx.sh --check

fmt:
	cargo fmt --all

sqlx: ## Check every query against a real database and rewrite .sqlx
	scripts/sqlx.sh

openapi: ## Rewrite the OpenAPI document and the portal's types
	cargo run -q --locked -p everhold -- openapi > web/openapi.json
	cd web && npm run --silent generate

clean: ## Remove builds and caches, never $(STATE)
	cargo clean
	rm -rf .cache .dev web/dist web/node_modules tests/.venv
