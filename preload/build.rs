//! Says to the linker what a shared `malloc` needs.

fn main() {
    // The names under `perseq_` jump to the standard ones, which a program may replace: they shall reach ours all the same.
    println!("cargo::rustc-cdylib-link-arg=-Wl,-Bsymbolic-functions");
    // Threads and the kernel point into the library as long as the process lives, so `dlclose` shall not unmap it.
    println!("cargo::rustc-cdylib-link-arg=-Wl,-z,nodelete");
    // The number changes with the C interface, not with the version.
    println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,libperseq.so.0");
    // What no library has is found out here, and not when a program starts.
    println!("cargo::rustc-cdylib-link-arg=-Wl,-z,defs");
    println!("cargo::rerun-if-changed=build.rs");
}
