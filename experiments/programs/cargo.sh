# The `rseq` crate of this project and what it needs, from nothing, and its unit tests compiled.
[ -f "$PROJECT_SOURCE/rseq/Cargo.toml" ] || { echo "the sources this command was built from are gone" >&2; exit 77; }
export CARGO_TERM_COLOR=never CARGO_TARGET_DIR=$PWD/target
cargo build --quiet --offline --release --manifest-path "$PROJECT_SOURCE/rseq/Cargo.toml" -p perseq-rseq && echo built
cargo test --quiet --offline --no-run --manifest-path "$PROJECT_SOURCE/rseq/Cargo.toml" -p perseq-rseq --lib && echo "tests compiled"
ls target/release/librseq.rlib
