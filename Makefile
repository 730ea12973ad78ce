# Each verb is a script of the same name in scripts/.
.DEFAULT_GOAL := help
.PHONY: help build image generate fmt lint test test-fast e2e conformance fuzz bench soak demo

help: ## show this list
	@awk -F ':.*## ' '/^[a-z0-9]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## a pod gets three interfaces, and loses them again: no cluster needed
	@scripts/demo.sh

build: ## build the commands into bin/, static and stripped
	@scripts/build.sh

image: ## make the container image in bin/image, for amd64 and arm64; PUSH=REFERENCE pushes it
	@scripts/image.sh

test: ## units, namespaces, an API server; in a user-mode kernel what this one lacks
	@scripts/test.sh

test-fast: ## tests that need neither root nor an API server, in less than a minute
	@scripts/test-fast.sh

e2e: ## real pods: kubelet, containerd and a control plane on this machine
	@scripts/e2e.sh

conformance: ## the table of specification items, their tests and results
	@scripts/conformance.sh

bench: ## time and CPU of attaching a pod, beside the same plugins without a meta-plugin
	@scripts/bench.sh

soak: ## 20,000 operations that are killed, stopped, or on full disks; nothing is left
	@scripts/soak.sh

fuzz: ## each fuzz target for FUZZTIME (default 60s)
	@scripts/fuzz.sh

generate: ## write deepcopy functions, conf/crd/ipblocks.yaml, conf/deploy, the chart's files
	@scripts/generate.sh

lint: ## static checks of code, scripts, formatting and generated files
	@scripts/lint.sh

fmt: ## format the code
	@scripts/fmt.sh
