# What one does with this project. `make help` lists it. Written for GNU make 3.81, which macOS has.

export CARGO_TARGET_DIR ?= target

.DEFAULT_GOAL := help
.PHONY: help demo test pages chaos check docs instructions instructions-renew fuzz audit simulate bench peers servers clean

help: ## List these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-18s %s\n", $$1, $$2 }' Makefile

# Not optimised: it builds in half the time, and is fast enough.
demo: ## Watch the whole story on a private server: a fleet, a crash, retries, dead letters, their replay; ARGS="--cluster"
	@server=$$(scripts/servers any) && \
	cargo build --features shop --bin shop && \
	exec "$$CARGO_TARGET_DIR/debug/shop" demo --server "$$server" $(ARGS)

# Most tests wait rather than compute: more run at once than there are processors on a small machine. With eight at once two
# processors are busy all the time, and what is to happen by a time no longer does.
test: ## Run every test on a real Redis and a real Valkey, pages in a real browser; ARGS="name" runs the tests of that name
	@servers=$$(scripts/servers both) && eval "$$servers" && \
	export STREAMHAND_TEST_REDIS="$$redis" STREAMHAND_TEST_VALKEY="$$valkey" && \
	browser=$$(scripts/browser) && eval "$$browser" && \
	export STREAMHAND_TEST_CHROMIUM="$$chromium" STREAMHAND_TEST_CHROMEDRIVER="$$chromedriver" && \
	prometheus=$$(scripts/prometheus) && eval "$$prometheus" && \
	export STREAMHAND_TEST_PROMETHEUS="$$prometheus" STREAMHAND_TEST_PROMTOOL="$$promtool" && \
	languages=$$(scripts/languages) && eval "$$languages" && \
	export STREAMHAND_TEST_PYTHON="$$python" STREAMHAND_TEST_REDIS_PY="$$redis_py" && \
	export STREAMHAND_TEST_NODE="$$node" STREAMHAND_TEST_NODE_REDIS="$$node_redis" && \
	export RUST_TEST_THREADS="$${RUST_TEST_THREADS:-6}" && \
	cargo test --workspace --no-fail-fast $(ARGS)

# Both servers at once, or SERVER=redis. What happens is told by SEED; when exactly, by the machine.
chaos: ## Have everything go wrong at once for ten minutes on each server; SECONDS=60 SEED=1 SERVER=valkey
	@servers=$$(scripts/servers both) && eval "$$servers" && \
	export STREAMHAND_TEST_REDIS="$$redis" STREAMHAND_TEST_VALKEY="$$valkey" && \
	export STREAMHAND_CHAOS_SECONDS="$(SECONDS)" STREAMHAND_CHAOS_SEED="$(SEED)" && \
	cargo test --test behaviour chaos::at_length_on_$(SERVER) -- --ignored --nocapture --test-threads=2

pages: ## Look how long pages take with ten million entries and a million letters: nine minutes, and a gigabyte
	@servers=$$(scripts/servers both) && eval "$$servers" && \
	export STREAMHAND_TEST_REDIS="$$redis" STREAMHAND_TEST_VALKEY="$$valkey" && \
	cargo test --test behaviour web::pages_of_ten_million -- --ignored --nocapture

check: ## Check format, lints, documentation (every warning is an error), licences, and what an entry costs in instructions
	@cargo fmt --version >/dev/null 2>&1 || \
	{ echo "make check needs rustfmt: install it with 'rustup component add rustfmt'" >&2; exit 1; }
	@cargo clippy --version >/dev/null 2>&1 || \
	{ echo "make check needs clippy: install it with 'rustup component add clippy'" >&2; exit 1; }
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	scripts/features
	RUSTDOCFLAGS="-D warnings" cargo doc --no-deps
	@if cargo deny --version >/dev/null 2>&1; then \
	    echo "cargo deny check licenses bans sources"; cargo deny check licenses bans sources; \
	else \
	    echo "cargo-deny is not installed: licences are looked at by 'make test' alone, bans and sources by nothing" >&2; \
	fi
	scripts/instructions check

docs: ## Build the book into target/book and the documentation of the library into target/doc
	@mdbook --version >/dev/null 2>&1 || \
	{ echo "make docs needs mdbook: install it with 'cargo install --locked mdbook'" >&2; exit 1; }
	mdbook build
	cargo doc --no-deps

instructions: ## Compare the instructions an entry costs with those on record: half a minute, the first build two
	@scripts/instructions check

instructions-renew: ## Put on record what an entry costs now, where it is meant to cost more, or costs less
	@scripts/instructions renew

fuzz: ## Try the decoder of replies on random input for some minutes; CASES=20000 is a few seconds
	PROPTEST_CASES=$${CASES:-1000000} cargo test --release --lib stream::resp

audit: ## Look for known vulnerabilities and unwanted licences among the dependencies
	@if cargo deny --version >/dev/null 2>&1; then \
	    cargo deny check licenses bans sources && { cargo deny check advisories || \
	    { echo "there are advisories, or their database could not be fetched: see above" >&2; exit 1; }; }; \
	elif cargo audit --version >/dev/null 2>&1; then \
	    echo "cargo-deny is not installed: licences are not checked" >&2; cargo audit --deny warnings; \
	else \
	    echo "nothing was audited: install cargo-deny with 'cargo install --locked cargo-deny'" >&2; exit 1; \
	fi

# Not optimised but for the simulation itself: what it drives is small.
simulate: ## What a fleet of 1,000 workers on 1,000 partitions asks of each node, in virtual time; ARGS="--workers 200"
	@cargo run --quiet --package streamhand-simulate -- $(ARGS)

bench: ## Measure everything and write docs/benchmarks.md: an hour on a quiet machine; ARGS="latency load" measures these
	@scripts/bench $(ARGS)

peers: ## Measure the same work done by other crates; the first build takes about ten minutes
	@server=$$(scripts/servers any) && \
	echo "building the peers; the first time it takes about ten minutes" >&2 && \
	CARGO_TARGET_DIR=benches/peers/target cargo build --release --manifest-path benches/peers/Cargo.toml && \
	exec benches/peers/target/release/peers all --server "$$server" $(ARGS)

servers: ## Find or fetch what the tests run on, Redis, Valkey, a browser, Prometheus, clients of other languages, and print where they are
	@scripts/servers both
	@scripts/browser
	@scripts/prometheus
	@scripts/languages

clean: ## Remove what was built and the servers that were fetched
	cargo clean
	rm -rf .servers benches/peers/target
