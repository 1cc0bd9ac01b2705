//! `PERSEQ_PROFILE`: C programs that allocate blocks of known sizes are profiled on the debug library, in every mode, and
//! what the files say is held against what the programs did.
//!
//! A block is a sample with a known probability, whatever the others are, so the samples of a size are binomially
//! distributed. A count here may be off by what happens once in 500 million times.

mod kit;
#[path = "../../tests/kit/likely.rs"]
mod likely;
#[path = "kit/timed.rs"]
mod timed;

use likely::is_likely;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Bytes from one sample to the next.
const RATE: f64 = 8192.0;

/// A folder of this test's own, empty.
fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("profiles-{name}-{}", std::process::id()));
    drop(std::fs::remove_dir_all(&folder));
    std::fs::create_dir(&folder).expect("a new folder");
    folder
}

/// The program, with this argument, in this mode or `hardened`, profiled to files in the folder.
fn profiled(what: &str, mode: &str, folder: &Path) -> Command {
    let mut command = Command::new(timed::build_c("profile.c", &[]));
    command.arg(what).env("LD_PRELOAD", kit::debug_library());
    command.env("PERSEQ_PROFILE", format!("8K,{}/{mode}", folder.display()));
    match mode {
        "hardened" => command.env("PERSEQ_HARDENED", "1"),
        mode => command.env("PERSEQ_MODE", mode),
    };
    command
}

/// Sampled blocks and bytes, live and all told.
type Counts = [u64; 4];

/// A line of a profile.
struct Line {
    counts: Counts,
    frames: Vec<usize>,
    fate: Option<Fate>,
}

/// What became of freed samples.
struct Fate {
    other_cpu: u64,
    other_thread: u64,
    /// How many lived less than 10 us, from there to 100 us, and so on.
    ages: Vec<u64>,
}

/// `# of ALL freed: MANY on another CPU, MANY by another thread, after AGES`
fn fate(line: &str) -> Fate {
    let parse = || {
        let (all, rest) = line.strip_prefix("# of ")?.split_once(" freed: ")?;
        let (other_cpu, rest) = rest.split_once(" on another CPU, ")?;
        let (other_thread, ages) = rest.split_once(" by another thread, after ")?;
        let ages: Vec<u64> = ages.split(' ').map(|age| age.parse().ok()).collect::<Option<_>>()?;
        assert_eq!(ages.iter().sum::<u64>(), all.parse().ok()?, "{line}");
        Some(Fate { other_cpu: other_cpu.parse().ok()?, other_thread: other_thread.parse().ok()?, ages })
    };
    parse().unwrap_or_else(|| panic!("no fate: {line}"))
}

/// A profile, read.
struct Profile {
    lines: Vec<Line>,
    mappings: String,
}

/// `LIVE: BYTES [ ALL: BYTES] @` and what follows.
fn counts(line: &str) -> (Counts, &str) {
    let (numbers, rest) = line.split_once('@').unwrap_or_else(|| panic!("no @: {line}"));
    let numbers: Vec<_> = numbers.split([':', '[', ']', ' ']).filter(|part| !part.is_empty()).collect();
    let counts: Vec<u64> = numbers.iter().map(|number| number.parse().expect("a number")).collect();
    (counts.try_into().unwrap_or_else(|_| panic!("not four numbers: {line}")), rest)
}

/// Reads a profile: its header is the sum of its lines, and each line makes sense.
fn read(path: &Path) -> Profile {
    read_as(path, false)
}

/// As [`read`]: handlers interrupted the process, so what became of a sample need not be known.
fn read_as(path: &Path, is_interrupted: bool) -> Profile {
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let (samples, mappings) = text.split_once("\nMAPPED_LIBRARIES:\n").expect("mappings");
    let mut lines = samples.lines();
    let header = lines.next().and_then(|line| line.strip_prefix("heap profile: ")).expect("a header");
    let (total, form) = counts(header);
    assert_eq!(form, format!(" heap_v2/{RATE}"));
    // `# SITE in use: CPU NUMBER, thread NUMBER`, behind all sites.
    let (in_use, lines): (Vec<_>, Vec<_>) = lines.partition(|line| line.contains(" in use: "));
    let in_use = in_use.into_iter().map(|line| {
        let (site, place) = line.strip_prefix("# ").and_then(|line| line.split_once(" in use: CPU ")).expect("a site");
        let (cpu, thread) = place.split_once(", thread ").expect("a thread");
        assert!(cpu.parse::<u32>().is_ok() && thread.parse::<u32>().is_ok(), "{line}");
        site
    });
    let in_use: Vec<_> = in_use.collect();
    let mut lines = lines.into_iter().peekable();
    let read = std::iter::from_fn(|| {
        let line = lines.next()?;
        let fate = lines.next_if(|next| next.starts_with("# of ")).map(fate);
        Some((line, fate, lines.next_if(|next| next.starts_with('#')).and_then(|line| line.strip_prefix("# site "))))
    });
    let lines: Vec<_> = read
        .map(|(line, fate, site)| {
            // Of each that was freed it is known, and of each that is in use it is not.
            let (numbers, _) = counts(line);
            let freed = fate.as_ref().map_or(0, |fate| fate.ages.iter().sum());
            assert!(freed == numbers[2] - numbers[0] || is_interrupted, "{line}: {freed} freed");
            let (counts, frames) = counts(line);
            let frame = |frame: &str| usize::from_str_radix(frame.trim_start_matches("0x"), 16).expect("an address");
            let frames: Vec<_> = frames.split_whitespace().map(frame).collect();
            assert!(counts[0] <= counts[2] && counts[1] <= counts[3] && !frames.is_empty(), "{line}");
            // One line has blocks of one size.
            assert!(counts[3].is_multiple_of(counts[2]) && counts[1] == counts[0] * (counts[3] / counts[2]), "{line}");
            let placed = in_use.iter().filter(|of| Some(**of) == site).count() as u64;
            assert!(placed == counts[0] || is_interrupted, "{line}: {placed} in use");
            Line { counts, frames, fate }
        })
        .collect();
    let sum = |place: usize| lines.iter().map(|line| line.counts[place]).sum();
    assert_eq!(total, [sum(0), sum(1), sum(2), sum(3)], "{}", path.display());
    Profile { lines, mappings: mappings.to_owned() }
}

impl Profile {
    /// Samples of blocks of so many bytes: live, and all.
    fn of_size(&self, size: u64) -> (u64, u64) {
        let lines = self.lines.iter().filter(|line| line.counts[3] / line.counts[2] == size);
        lines.fold((0, 0), |(live, all), line| (live + line.counts[0], all + line.counts[2]))
    }

    /// Asserts that all frames of lines of such blocks are in code that is mapped, and no innermost one is libperseq's.
    fn frames_are_the_programs(&self, size: u64) {
        let mapping_of = |frame: usize| {
            self.mappings.lines().find(|line| {
                let (start, end) =
                    line.split_whitespace().next().and_then(|range| range.split_once('-')).expect("a range");
                let number = |text| usize::from_str_radix(text, 16).expect("an address");
                (number(start)..number(end)).contains(&frame)
            })
        };
        for line in self.lines.iter().filter(|line| line.counts[3] / line.counts[2] == size) {
            let mappings: Vec<_> = line.frames.iter().filter_map(|frame| mapping_of(frame - 1)).collect();
            assert_eq!(mappings.len(), line.frames.len(), "{:x?}", line.frames);
            assert!(mappings[0].contains("/profile-c") && mappings[0].contains("r-xp"), "{mappings:#?}");
        }
    }
}

/// Asserts that of so many blocks as many are samples as their size makes likely.
fn likely(what: &str, size: f64, blocks: f64, samples: u64) {
    let p = 1.0 - (-size / RATE).exp();
    assert!(is_likely(blocks as u64, p, samples), "{what}: {samples} of {blocks}, expected {:.1}", blocks * p);
}

/// Holds the profile against what the program said: `SIZE ALLOCATED LIVE` in each line.
fn as_said(profile: &Profile, said: &str, what: &str) {
    let mut sizes = 0;
    for line in said.lines() {
        let Ok([size, allocated, live]) =
            <[u32; 3]>::try_from(line.split(' ').filter_map(|number| number.parse().ok()).collect::<Vec<_>>())
        else {
            continue;
        };
        let (sampled_live, sampled) = profile.of_size(size.into());
        let what = format!("{what}: {line}");
        likely(&what, size.into(), allocated.into(), sampled);
        likely(&what, size.into(), live.into(), sampled_live);
        profile.frames_are_the_programs(size.into());
        sizes += 1;
    }
    assert!(sizes >= 10, "{said}");
}

/// The one file in the folder whose name begins and ends so.
fn only_file(folder: &Path, mode: &str, end: &str) -> PathBuf {
    let entries = std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    let is_it = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str()).expect("a name of ours");
        name.starts_with(&format!("{mode}.")) && name.ends_with(end)
    };
    let found: Vec<_> = entries.filter(is_it).collect();
    let [file] = &found[..] else { panic!("{mode}*{end}: {found:?}") };
    file.clone()
}

#[test]
fn planted_sites_come_out_within_their_interval_in_every_mode() {
    let folder = folder("planted");
    for mode in timed::every_mode() {
        let outcome = timed::run(profiled("plant", mode, &folder)).ended(0, "");
        assert_eq!(outcome.stderr, "", "{outcome}");
        as_said(&read(&only_file(&folder, mode, ".heap")), &outcome.stdout, mode);
    }
    drop(std::fs::remove_dir_all(&folder));
}

/// On another CPU or by another thread, as the program did it: of all samples of a size or of none, or of as many as is
/// likely.
#[test]
fn samples_are_known_by_where_by_whom_and_when_they_were_freed() {
    let folder = folder("fates");
    for mode in timed::every_mode() {
        let outcome = timed::run(profiled("fates", mode, &folder)).ended(0, "");
        if outcome.stdout.contains("one CPU") {
            return kit::not_tested("second-cpu", "frees on another CPU", "one CPU only");
        }
        let profile = read(&only_file(&folder, mode, ".heap"));
        let mut sizes = 0;
        for line in outcome.stdout.lines().filter_map(|line| line.strip_prefix("fate ")) {
            let numbers: Vec<u32> = line.split(' ').map(|number| number.parse().expect("a number")).collect();
            let [size, all, other_cpu, other_thread] = numbers[..] else { panic!("{line}") };
            let lines = profile.lines.iter().filter(|line| line.counts[3] / line.counts[2] == u64::from(size));
            let fates: Vec<_> = lines.filter_map(|line| line.fate.as_ref()).collect();
            let sum = |number: fn(&Fate) -> u64| fates.iter().map(|fate| number(fate)).sum::<u64>();
            let freed = sum(|fate| fate.ages.iter().sum());
            assert!(freed > 0, "{mode}: {line}");
            for (found, of) in [(sum(|fate| fate.other_cpu), other_cpu), (sum(|fate| fate.other_thread), other_thread)]
            {
                let what = format!("{mode}: {line}: {found} of {freed}");
                match of {
                    0 => assert_eq!(found, 0, "{what}"),
                    of if of == all => assert_eq!(found, freed, "{what}"),
                    of => likely(&what, size.into(), of.into(), found),
                }
            }
            let young: u64 = fates.iter().flat_map(|fate| &fate.ages[..4]).sum();
            match size {
                // It was kept for 20 ms.
                262_144 => assert_eq!((young, freed), (0, 1), "{mode}: {line}"),
                // However busy the host is, none is as old as the test may become.
                _ => assert_eq!(fates.iter().map(|fate| fate.ages[8]).sum::<u64>(), 0, "{mode}: {line}"),
            }
            sizes += 1;
        }
        assert_eq!(sizes, 7, "{outcome}");
    }
    drop(std::fs::remove_dir_all(&folder));
}

#[test]
fn a_child_of_fork_has_a_profile_of_its_own() {
    let folder = folder("fork");
    for mode in timed::every_mode() {
        let outcome = timed::run(profiled("fork", mode, &folder)).ended(0, "parent ");
        let ids: Vec<_> = outcome.stdout.lines().last().expect("a line").split(' ').collect();
        let [_, parent, _, child] = ids[..] else { panic!("{outcome}") };
        let [parent, child] = [parent, child].map(|id| read(&only_file(&folder, mode, &format!(".{id}.heap"))));
        // What was sampled before is the child's as well, as the memory is.
        let (of_both, of_child) = outcome.stdout.split_once("3584 ").expect("what the child allocates");
        as_said(&parent, of_both, mode);
        as_said(&child, &format!("{of_both}3584 {of_child}"), mode);
        assert_eq!(parent.of_size(3584), (0, 0), "{mode}");
    }
    drop(std::fs::remove_dir_all(&folder));
}

/// Children of `vfork` and `clone` use the memory and the TLS of a thread, while others allocate.
#[test]
fn children_may_run_on_their_parents_memory() {
    let folder = folder("children");
    for mode in timed::every_mode() {
        for way in ["vfork", "nested", "clone"] {
            let mut command = Command::new(timed::build_c("children.c", &["-std=gnu11"]));
            let from = profiled(way, mode, &folder);
            from.get_envs().for_each(|(name, value)| _ = command.env(name, value.expect("a value")));
            command.args([way, "0.1"]);
            timed::run(command).ended(0, " children");
        }
    }
    drop(std::fs::remove_dir_all(&folder));
}

/// The profile needs no lock, whatever the handler interrupted.
#[test]
fn a_handler_may_end_the_process_or_ask_for_the_profile() {
    let folder = folder("handler");
    for mode in timed::every_mode() {
        // In these, a handler may not allocate, and exit() of this libc does.
        if mode.starts_with("perthread") {
            continue;
        }
        for _ in 0..3 {
            timed::run(profiled("handler", mode, &folder)).ended(0, "");
            let file = only_file(&folder, mode, ".heap");
            assert!(read_as(&file, true).of_size(1024).1 > 0, "{mode}");
            std::fs::remove_file(file).expect("a file of ours");
        }
    }
    for mode in timed::every_mode() {
        let file = folder.join(format!("{mode}.asked"));
        let mut command = profiled("ask", mode, &folder);
        command.arg(&file);
        timed::run(command).ended(0, "");
        let (live, all) = read_as(&file, true).of_size(1024);
        assert!(live <= 2 && all > 0, "{mode}: {live} of {all}");
    }
    drop(std::fs::remove_dir_all(&folder));
}

/// What an earlier process with the same number left is written over.
#[test]
fn a_file_of_another_time_makes_room() {
    let folder = folder("stale");
    let from = profiled("plant", "percpu", &folder);
    // For the program alone: the shell has a profile as well, else.
    let variables = from.get_envs().map(|(name, value)| (name, value.expect("a value")));
    let mut command = Command::new("bash");
    command.args(["-c", "touch -d 2020-01-01 \"$0/percpu.$$.heap\" && exec env \"$@\""]).arg(&folder);
    for (name, value) in variables {
        command.arg(format!("{}={}", name.display(), value.display()));
    }
    command.arg(from.get_program()).arg("plant");
    let outcome = timed::run(command).ended(0, "1024 ");
    as_said(&read(&only_file(&folder, "percpu", ".heap")), &outcome.stdout, "over an old file");
    drop(std::fs::remove_dir_all(&folder));
}

#[test]
fn without_the_variable_there_is_no_profile() {
    let folder = folder("off");
    let mut command = profiled("plant", "percpu", &folder);
    command.env_remove("PERSEQ_PROFILE").current_dir(&folder);
    timed::run(command).ended(0, "1024 ");
    let mut command = profiled("ask", "percpu", &folder);
    command.env("PERSEQ_PROFILE", "").arg(folder.join("asked"));
    let outcome = timed::run(command).ended(1, "");
    assert!(outcome.stderr.contains("write_profile(out) == 0"), "{outcome}");
    assert_eq!(std::fs::read(folder.join("asked")).expect("an empty file"), b"");
    std::fs::remove_file(folder.join("asked")).expect("a file of ours");
    assert_eq!(std::fs::read_dir(&folder).expect("a folder").count(), 0);
    drop(std::fs::remove_dir_all(&folder));
}

#[test]
fn what_makes_no_sense_is_said() {
    for bad in ["4095", "0", "512K,", "512K,folder/", "often", "-1", ",name"] {
        let mut command = Command::new("true");
        command.env("LD_PRELOAD", kit::debug_library()).env("PERSEQ_PROFILE", bad);
        let outcome = timed::run(command);
        assert!(
            !outcome.status.success() && outcome.stderr.contains("expected bytes, at least 4K"),
            "{bad}: {outcome}"
        );
    }
    let mut command = Command::new("bash");
    command.args(["-c", "echo begun >&2"]).env("LD_PRELOAD", kit::debug_library());
    command.env("PERSEQ_PROFILE", "1M,/nonexistent/name");
    let outcome = timed::run(command);
    let at_start = "perseq: PERSEQ_PROFILE: /nonexistent/name.PID.heap cannot be written\nbegun\n";
    assert!(outcome.stderr.starts_with(at_start), "{outcome}");
    assert!(outcome.stderr.ends_with(".heap cannot be written\n"), "{outcome}");
    outcome.ended(0, "");
}

/// Another program than this test reads the file, finds the functions by name and weights the samples.
#[test]
fn pprof_reads_it() {
    if !kit::is_installed("google-pprof", "a reader of profiles that is not ours") {
        return;
    }
    let folder = folder("pprof");
    // A copy, which no other test replaces: a reader looks for the file where the mappings say.
    let program = folder.join("planted");
    std::fs::copy(timed::build_c("profile.c", &[]), &program).expect("a copy");
    let program = kit::preloadable::preloadable(program); // the reader is cut at blanks as well
    let from = profiled("plant", "percpu", &folder);
    let mut command = Command::new(&program);
    command.args(from.get_args());
    from.get_envs().for_each(|(name, value)| _ = command.env(name, value.expect("a value")));
    timed::run(command).ended(0, "");
    let file = only_file(&folder, "percpu", ".heap");
    let table = |argument: &str| {
        let mut command = Command::new("google-pprof");
        command.args(["--text", argument, "--show_bytes"]).arg(&program).arg(&file);
        let outcome = timed::run(command);
        assert!(outcome.stderr.contains("1-in-8192 sampling rate"), "{outcome}");
        outcome.ended(0, "").stdout
    };
    // Bytes of the function itself, the first number of its line.
    let bytes_of = |table: &str, function: &str| {
        let line = table.lines().find(|line| line.ends_with(&format!(" {function}")));
        let line = line.unwrap_or_else(|| panic!("no {function}: {table}"));
        line.split_whitespace().next().and_then(|bytes| bytes.parse::<f64>().ok()).expect("a number")
    };
    let close = |what: &str, bytes: f64, expected: f64| {
        assert!((bytes / expected - 1.0).abs() < 0.2, "{what}: {bytes}, expected {expected}");
    };
    let (live, all) = (table("--inuse_space"), table("--alloc_space"));
    close("calloc, live", bytes_of(&live, "by_calloc"), 6000.0 * 1280.0 + 1000.0 * 40960.0);
    close("memalign, all", bytes_of(&all, "by_memalign"), 6000.0 * 1536.0 + 1000.0 * 73728.0);
    close("realloc, live", bytes_of(&live, "by_realloc"), 6000.0 * 768.0 + 1000.0 * 57344.0);
    drop(std::fs::remove_dir_all(&folder));
}
