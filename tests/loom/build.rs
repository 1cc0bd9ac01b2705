//! The sources of `src` see `cfg(loom)` here, and only here.

fn main() {
    println!("cargo::rustc-cfg=loom");
    println!("cargo::rerun-if-changed=build.rs");
}
