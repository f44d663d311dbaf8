# The commands of this project. `make help` lists them.
.DEFAULT_GOAL := help
.PHONY: help demo demo-clean demo-check test lint sqlx check-sqlx bench bench-smoke

help:            ## this list
	@grep -hE '^[a-z-]+: *##' $(MAKEFILE_LIST) | sed 's/: *## */\t/' | expand -t 16

demo:            ## the gateway with a demo office and a scripted evening, until Ctrl-C
	@scripts/demo.sh

demo-clean:      ## remove what the demo made
	@scripts/demo.sh clean

demo-check:      ## bring the demo up and down once, on other ports
	@scripts/demo-check.sh

test:            ## every test, with private servers and a real browser
	@scripts/test.sh

lint:            ## formatting and lints, warnings denied
	cargo fmt --all --check
	SQLX_OFFLINE=true cargo clippy --workspace --all-targets --locked -- -D warnings

sqlx:            ## make the checked queries (.sqlx) anew
	@scripts/sqlx.sh write

check-sqlx:      ## fail when .sqlx is not current
	@scripts/sqlx.sh check

bench:           ## the measurements that the README quotes: some minutes
	@scripts/bench.sh

bench-smoke:     ## the same, so short that the figures mean nothing
	@BENCH=short scripts/bench.sh
