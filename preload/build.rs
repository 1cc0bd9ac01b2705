//! Says to the linker what a shared `malloc` needs.

fn main() {
    // The names under `perseq_` jump to the standard ones, which a program may replace: they shall reach ours all the same.
    println!("cargo::rustc-cdylib-link-arg=-Wl,-Bsymbolic-functions");
    println!("cargo::rerun-if-changed=build.rs");
}
