# A list of the make tasks, which xtask runs. Their code is in xtask/src/tasks.
#
# xtask has a target folder of its own, so `make token` and `make logs` do not wait
# for a build that runs in another window.
XTASK = cargo run --package xtask --target-dir target/xtask

export PORT ENDPOINT PARAMETERS PROFILE ENV SERVICE ONLY ORDER OTLP SECONDS SINCE

.PHONY: help up console watch sam-local build deploy demo token logs trace reconcile redrive down clean test test-fast chaos faults bench fuzz mutants openapi asyncapi record lint

help: ## Lists the tasks
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 18

up: ## Installs the tools, builds, starts an emulator, deploys, places an order [PORT=4566, or ENDPOINT=http://…] [PARAMETERS=…] [PROFILE=release]
	@$(XTASK) -- up

console: ## Opens a page over the running stack: order, break it, watch it recover [PORT=4580]
	@$(XTASK) -- console

build: ## Builds the functions for AWS, without deploying them: ENV=dev or prod
	@$(XTASK) -- build

deploy: ## Deploys to AWS as samconfig.toml says: ENV=dev or prod [SERVICE=users]
	@$(XTASK) -- deploy

demo: ## Places one more order and shows each step
	@$(XTASK) --quiet -- demo

token: ## Prints a new ID token of the demo customer [WHO=admin]
	@$(XTASK) --quiet -- token $(WHO)

watch: ## Runs the functions over the running stack, and compiles them anew when you edit [PORT=9000]
	@$(XTASK) --quiet -- watch

sam-local: ## Runs the functions in Lambda's containers, over the running stack [PORT=3000]
	@$(XTASK) --quiet -- sam-local

logs: ## Shows the functions' logs as they arrive, or the lines of one order [ORDER=ord_…] [ENV=dev]
	@$(XTASK) --quiet -- logs

trace: ## Draws the way of one order through all functions: ORDER=ord_… [ENV=dev] [OTLP=http://localhost:4318]
	@$(XTASK) --quiet -- trace

reconcile: ## Compares orders, stock, payments and the provider [SINCE=2026-11-27] [ENV=dev]
	@$(XTASK) --quiet -- reconcile

redrive: ## Moves the events in the dead-letter queues back to their queues
	@$(XTASK) --quiet -- redrive

down: ## Stops the emulator and everything that it has started
	@$(XTASK) --quiet -- down

clean: ## Stops the emulator, and removes the tools and everything that was deployed to the emulator
	@$(XTASK) --quiet -- clean

test: ## Runs all tests, on a stack of their own [PROFILE=release]
	@$(XTASK) -- test

test-fast: ## Runs the tests that need no emulator
	@$(XTASK) -- test-fast

chaos: ## Places hundreds of orders while functions are killed, and checks every promise
	@$(XTASK) -- chaos

faults: ## Runs every pair of faults in every scenario: an hour or two
	@$(XTASK) -- faults

bench: ## Measures speed, throughput and cost, and writes docs/performance.md [ONLY=section]
	@$(XTASK) -- bench

fuzz: ## Looks for input that breaks a parser, three minutes for each parser [ONLY=target SECONDS=180]
	@$(XTASK) -- fuzz

mutants: ## Breaks each rule on which a promise rests, and checks that a test fails [ONLY=words of the rule]
	@$(XTASK) -- mutants

openapi: ## Writes docs/openapi.yaml from the code
	@$(XTASK) --quiet -- openapi

asyncapi: ## Writes docs/asyncapi.yaml from the code
	@$(XTASK) --quiet -- asyncapi

record: ## Records what this version's services send and store; once for each new version
	@$(XTASK) --quiet -- record

lint: ## Checks format, clippy, template and dependencies
	@$(XTASK) -- lint
