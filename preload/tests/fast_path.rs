//! The fast paths of `malloc` and `free`, read from libperseq.so as users get it: no call, no atomic operation, and no more
//! instructions than they had.
#![cfg(target_arch = "x86_64")]

mod kit;
#[path = "../../tests/kit/machine_code.rs"]
mod machine_code;

/// Counted in the code of the compiler that `rust-toolchain.toml` names. More is a fast path that became slower.
#[test]
fn fast_paths_cost_what_they_did() {
    let bytes = std::fs::read(kit::library()).expect("the library");
    let file = object::File::parse(&*bytes).expect("an ELF file");
    machine_code::check(&machine_code::function(&file, "malloc"), "malloc", [(29, 8, 2), (31, 8, 2), (21, 6, 1)]);
    machine_code::check(&machine_code::function(&file, "free"), "free", [(35, 10, 3), (37, 10, 3), (30, 8, 2)]);
}
