//! In a program that is built with optimization and LTO, the fast path is part of the caller's code, and a layout that
//! the compiler knows is a size class it knows: nothing is looked up. Read from the program's own instructions.

#[path = "kit/machine_code.rs"]
mod machine_code;

use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use iced_x86::{Decoder, DecoderOptions, Instruction, Mnemonic};
use object::{Object, ObjectSection, ObjectSymbol};

/// A program's code, and where its symbols are.
struct Program {
    bytes: Vec<u8>,
}

impl Program {
    fn get() -> &'static Program {
        static PROGRAM: OnceLock<Program> = OnceLock::new();
        PROGRAM.get_or_init(Program::build)
    }

    fn build() -> Program {
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("folding");
        let output = Command::new(env!("CARGO"))
            .args(["build", "--release", "--quiet", "--offline", "--manifest-path"])
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/folding/Cargo.toml"))
            .arg("--target-dir")
            .arg(&target)
            .env("CARGO_PROFILE_RELEASE_DEBUG", "0")
            .env_remove("RUSTFLAGS")
            .output()
            .expect("cargo starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let program = target.join("release/folding");
        assert!(Command::new(&program).status().expect("it starts").success());
        Program { bytes: std::fs::read(program).expect("the program") }
    }

    fn file(&self) -> object::File<'_> {
        object::File::parse(&*self.bytes).expect("an ELF file")
    }

    /// Address and size of the one symbol whose name contains `name`.
    fn symbol(&self, name: &str) -> (u64, u64) {
        let file = self.file();
        let found: Vec<_> = file.symbols().filter(|symbol| symbol.name().is_ok_and(|n| n.contains(name))).collect();
        assert_eq!(found.len(), 1, "symbols with {name}");
        (found[0].address(), found[0].size())
    }

    fn code(&self, name: &str) -> Vec<Instruction> {
        let (address, size) = self.symbol(name);
        let file = self.file();
        let section = file.section_by_name(".text").expect("code");
        let bytes = section.data_range(address, size).expect("the section").expect("the function");
        Decoder::with_ip(64, bytes, address, DecoderOptions::NONE).into_iter().collect()
    }
}

/// Whether an instruction names an address from `start` on, `size` bytes long.
fn names(instruction: &Instruction, (start, size): (u64, u64)) -> bool {
    instruction.is_ip_rel_memory_operand() && (start..start + size).contains(&instruction.ip_rel_memory_address())
}

/// Counted in the code of the compiler that `rust-toolchain.toml` names. More is a fast path that became slower.
#[test]
fn fast_paths_cost_what_they_did() {
    let program = Program::get();
    let code = |name| machine_code::function(&program.file(), name);
    machine_code::check(&code("alloc_of_known_layout"), "alloc", [(23, 6, 2), (25, 6, 2), (17, 4, 1)]);
    machine_code::check(&code("free_of_known_layout"), "dealloc", [(22, 6, 3), (24, 6, 3), (16, 4, 2)]);
}

#[test]
fn a_known_layout_is_a_known_class() {
    let program = Program::get();
    let lookup = program.symbol("size_class6LOOKUP");
    let any = program.code("pair_of_any_layout");
    assert!(any.iter().any(|instruction| names(instruction, lookup)), "a layout that is not known is looked up");
    for name in ["pair_of_known_layout", "pair_of_boxes"] {
        let code = program.code(name);
        assert!(!code.iter().any(|instruction| names(instruction, lookup)), "{name} looks its class up");
        // The fast paths are inlined: what is called is slow, and there is a thread-local word.
        let calls = code.iter().filter(|instruction| instruction.mnemonic() == Mnemonic::Call).count();
        let local = code.iter().filter(|instruction| instruction.segment_prefix() == iced_x86::Register::FS).count();
        println!("{name}: {} instructions, {calls} calls; any layout: {}", code.len(), any.len());
        assert!(local >= 2, "{name} does not reach its cache without a call");
        assert!(code.len() < any.len(), "{name}: {} instructions, any layout {}", code.len(), any.len());
    }
}
