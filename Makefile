# A table of contents: what each task does is in xtask/src.
#
# xtask has a target folder of its own, so that `make token` or `make logs`
# needn't wait for a build that goes on elsewhere.
XTASK = cargo run --package xtask --target-dir target/xtask

export PORT ENDPOINT PARAMETERS ENV SERVICE ONLY SECONDS

.PHONY: help up watch sam-local build deploy demo token logs redrive down clean test test-fast chaos faults fuzz mutants openapi record lint

help: ## This list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 18

up: ## The whole shop on this machine: tools, build, emulator, deploy, an order [PORT=4566, or ENDPOINT=http://…] [PARAMETERS=…]
	@$(XTASK) -- up

build: ## The functions as AWS would get them, without deploying: ENV=dev or prod
	@$(XTASK) -- build

deploy: ## To AWS, as samconfig.toml has it: ENV=dev or prod [SERVICE=users]
	@$(XTASK) -- deploy

demo: ## One more order, shown as it goes
	@$(XTASK) --quiet -- demo

token: ## A fresh ID token of the demo customer [WHO=admin]
	@$(XTASK) --quiet -- token $(WHO)

watch: ## The functions as you edit them, over the running stack [PORT=9000]
	@$(XTASK) --quiet -- watch

sam-local: ## The functions in Lambda's containers, over the running stack [PORT=3000]
	@$(XTASK) --quiet -- sam-local

logs: ## What the functions say, as they say it
	@$(XTASK) --quiet -- logs

redrive: ## Dead letters go back to the queue
	@$(XTASK) --quiet -- redrive

down: ## Stop the emulator and all that it started
	@$(XTASK) --quiet -- down

clean: ## down, and remove the tools and everything that was deployed
	@$(XTASK) --quiet -- clean

test: ## Everything that proves the project, on a stack of its own
	@$(XTASK) -- test

test-fast: ## The tests that need no emulator
	@$(XTASK) -- test-fast

chaos: ## Hundreds of orders while functions are killed: is every promise kept?
	@$(XTASK) -- chaos

faults: ## Every pair of faults in every scenario: an hour or two
	@$(XTASK) -- faults

fuzz: ## Looks for bytes that break a parser's promise, three minutes for each [ONLY=target SECONDS=180]
	@$(XTASK) -- fuzz

mutants: ## Breaks each rule that the promise rests on: do the tests notice? [ONLY=words of the rule]
	@$(XTASK) -- mutants

openapi: ## docs/openapi.yaml, anew from the code
	@$(XTASK) --quiet -- openapi

record: ## What this version's services say to each other and store; once, for a new version
	@$(XTASK) --quiet -- record

lint: ## Format, clippy, template, dependencies
	@$(XTASK) -- lint
