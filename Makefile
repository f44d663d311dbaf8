# The commands of this project. `make help` lists them.
.DEFAULT_GOAL := help
.PHONY: help demo demo-clean demo-check test lint sqlx check-sqlx bench bench-smoke bench-long

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

bench:           ## the measurements that the README quotes, beside rivals and peers: half an hour, 13 GB of disk
	@scripts/bench.sh

bench-long:      ## the same with ten million tickets and a million timers: two hours, 60 GB of disk
	@BENCH=long scripts/bench.sh

bench-smoke:     ## the same, so short that the figures mean nothing: does it work?
	@BENCH=short scripts/bench.sh
