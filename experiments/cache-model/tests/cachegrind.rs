//! One thread, against Valgrind's cachegrind: the same program, the same geometry, misses within 1 %.
//!
//! Cachegrind simulates two levels itself. The model is fed the trace of lackey, another of Valgrind's tools, of a run
//! in the same environment, so that its addresses are the same ones.

#[path = "../../../rseq/tests/kit/absence.rs"]
mod absence;

use perseq_cache_model::{Access, Counts, Geometry, Inclusion, LINE_BYTES, Model, Shape, Topology};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const L1_WAYS: usize = 8;
const L1_BYTES: usize = 32 << 10;
const L2_WAYS: usize = 16;
const L2_BYTES: usize = 512 << 10;

/// What cachegrind counts of data.
#[derive(Debug)]
struct Reference {
    accesses: u64,
    l1_misses: u64,
    ll_misses: u64,
}

#[test]
fn one_thread_misses_as_in_cachegrind() {
    for (tool, what) in [("valgrind", "the model against cachegrind"), ("cc", "the model against cachegrind")] {
        if !absence::is_installed(tool, what) {
            return;
        }
    }
    let folder = tempfile::tempdir().expect("a folder");
    let program = compile(folder.path());
    let reference = cachegrind(&program, folder.path());
    let counts = model(&program);
    println!("{reference:?}\n{counts:?}");
    near("accesses", counts.accesses(), reference.accesses);
    near("misses of the first level", counts.l1_misses, reference.l1_misses);
    near("misses of the second level", counts.l2_misses, reference.ll_misses);
    // The program does what it is for: neither level has all or nothing.
    assert!(reference.l1_misses > reference.accesses / 100 && reference.ll_misses > reference.l1_misses / 20);
    assert!(reference.ll_misses < reference.l1_misses / 2);
}

fn near(what: &str, found: u64, reference: u64) {
    let off = found.abs_diff(reference) as f64 / reference as f64;
    assert!(off <= 0.01, "{what}: {found}, cachegrind {reference}: {:.2} % off", 100.0 * off);
}

fn compile(folder: &Path) -> PathBuf {
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cachegrind/work.c");
    let program = folder.join("work");
    let status = Command::new("cc").args(["-O1", "-o"]).arg(&program).arg(source).status().expect("a C compiler");
    assert!(status.success(), "cc {source}: {status}");
    program
}

/// A tool of Valgrind, killed after five minutes. Nothing that differs between runs of it reaches the program's stack.
fn valgrind(tool: &str, options: &[String], program: &Path) -> Command {
    let mut command = Command::new("timeout");
    command.args(["--signal=KILL", "300", "valgrind", &format!("--tool={tool}")]).args(options).arg(program);
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command.stdout(Stdio::null());
    command
}

fn cachegrind(program: &Path, folder: &Path) -> Reference {
    let out = folder.join("cachegrind.out");
    let options = [
        "--cache-sim=yes".into(),
        format!("--D1={L1_BYTES},{L1_WAYS},{LINE_BYTES}"),
        format!("--LL={L2_BYTES},{L2_WAYS},{LINE_BYTES}"),
        format!("--cachegrind-out-file={}", out.display()),
        format!("--log-file={}", folder.join("cachegrind.log").display()),
    ];
    let status = valgrind("cachegrind", &options, program).status().expect("timeout");
    assert!(status.success(), "cachegrind: {status}");
    let text = std::fs::read_to_string(out).expect("what cachegrind wrote");
    let line = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).expect("a line of cachegrind");
    let of = |name: &str| {
        let at = line("events: ").split_whitespace().position(|event| event == name).expect("an event");
        line("summary: ").split_whitespace().nth(at).and_then(|number| number.parse::<u64>().ok()).expect("a number")
    };
    Reference { accesses: of("Dr") + of("Dw"), l1_misses: of("D1mr") + of("D1mw"), ll_misses: of("DLmr") + of("DLmw") }
}

/// The model's counts of the trace that lackey writes: ` S 1ffefff8,8`, ` L …` or ` M …` for data, `I  …` for code.
fn model(program: &Path) -> Counts {
    let geometry = Geometry {
        name: "as cachegrind".into(),
        l1d: Shape::cache(L1_BYTES, L1_WAYS),
        l2: Shape::cache(L2_BYTES, L2_WAYS),
        llc: Shape::cache(L2_BYTES, L2_WAYS),
        inclusion: Inclusion::Victim,
        llc_cpus: None,
        dtlb: Shape::tlb(64, 4),
        stlb: Shape::tlb(1024, 8),
    };
    let mut model = Model::new(&geometry, Topology::new(1, 1, &[0]).expect("one CPU"), 1);
    let mut lackey = valgrind("lackey", &["--trace-mem=yes".into()], program);
    let mut lackey = lackey.stderr(Stdio::piped()).spawn().expect("timeout");
    let trace = lackey.stderr.take().expect("a pipe");
    for line in BufReader::new(trace).lines() {
        let line = line.expect("a line of lackey");
        let Some((kind, rest)) = line.strip_prefix(' ').and_then(|line| line.split_once(' ')) else { continue };
        let Some((address, bytes)) = rest.split_once(',') else { continue };
        let address = u64::from_str_radix(address, 16).expect("an address");
        let bytes = bytes.parse().expect("a size");
        model.access(&Access { cpu: 0, class: 0, write: kind != "L", address, bytes, page: address >> 12 });
    }
    let status = lackey.wait().expect("lackey's end");
    assert!(status.success(), "lackey: {status}");
    model.check().expect("the invariants hold");
    model.total()
}
