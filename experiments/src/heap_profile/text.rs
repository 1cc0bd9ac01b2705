//! The text that the allocator writes of a profile, read: `src/profile/text.rs` says what is in it.

use crate::mappings::Mapping;
use perseq::live::AGES;
use std::collections::{BTreeMap, HashMap};
use std::str::FromStr;

/// What a process wrote.
#[derive(Debug, PartialEq)]
pub struct Text {
    /// Bytes from one sample to the next, in the mean.
    pub rate: u64,
    pub sites: Vec<Site>,
    /// Samples that were not taken, for want of memory.
    pub lost: u64,
    /// In the order of addresses.
    pub mappings: Vec<Mapping>,
}

/// Samples of one stack, of blocks of one size.
#[derive(Debug, Default, PartialEq)]
pub struct Site {
    pub live: u64,
    pub live_bytes: u64,
    pub allocs: u64,
    pub alloc_bytes: u64,
    /// Where calls return to, innermost first. Empty: of stacks for which there was no room.
    pub frames: Vec<u64>,
    pub fate: Fate,
    /// Who allocated those in use, as far as it is known: each with how many.
    pub places: BTreeMap<Place, u64>,
}

/// Where and by whom a sample was allocated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The CPU, if the kernel said it.
    pub cpu: Option<u32>,
    /// The kernel's number of the thread.
    pub thread: u32,
}

/// What became of those that were freed, in samples.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Fate {
    /// Freed on another CPU than the one they were allocated on.
    pub other_cpu: u64,
    /// Freed by another thread than the one that allocated them.
    pub other_thread: u64,
    /// How many lived less than 10 us, from there to 100 us, and so on. Empty: none was freed.
    pub ages: Vec<u64>,
}

impl Fate {
    /// All of which it is known.
    pub fn freed(&self) -> u64 {
        self.ages.iter().sum()
    }
}

impl Site {
    /// Bytes of a block.
    pub fn block(&self) -> u64 {
        self.alloc_bytes / self.allocs
    }
}

impl Text {
    /// Reads it. The error says which line makes no sense.
    pub fn parse(text: &str) -> Result<Text, String> {
        let (samples, maps) = text.split_once("\nMAPPED_LIBRARIES:\n").ok_or("it is cut off: no mappings are in it")?;
        let mut lines = samples.lines();
        let header = lines.next().unwrap_or_default();
        let rate = header.strip_prefix("heap profile: ").and_then(|_| number(header.rsplit_once(" @ heap_v2/")?.1));
        let rate = rate.filter(|rate| *rate > 0).ok_or_else(|| wrong(header))?;
        let (mut sites, mut lost) = (Vec::<Site>::new(), 0);
        let mut named = HashMap::new();
        for line in lines {
            if let Some(note) = line.strip_prefix("# ") {
                if let Some(count) = note.strip_suffix(" samples were not taken, for want of memory") {
                    lost = number(count).ok_or_else(|| wrong(line))?;
                } else if note.starts_with("of ") {
                    let site = sites.last_mut().ok_or_else(|| wrong(line))?;
                    site.fate = fate(note).ok_or_else(|| wrong(line))?;
                } else if let Some(name) = note.strip_prefix("site ") {
                    let site = sites.len().checked_sub(1).ok_or_else(|| wrong(line))?;
                    named.insert(address(name).ok_or_else(|| wrong(line))?, site);
                } else if note.contains(" in use: ") {
                    let (name, place) = in_use(note).ok_or_else(|| wrong(line))?;
                    // Of a process that writes while it runs: what is not named was free, or was not there, a moment before.
                    if let Some(site) = named.get(&name) {
                        *sites[*site].places.entry(place).or_default() += 1;
                    }
                }
            } else {
                sites.push(site(line).ok_or_else(|| wrong(line))?);
            }
        }
        let mappings = maps.lines().map(|line| Mapping::parse(line).ok_or_else(|| wrong(line)));
        Ok(Text { rate, sites, lost, mappings: mappings.collect::<Result<_, _>>()? })
    }

    /// The mapping of an address.
    pub fn mapping_of(&self, address: u64) -> Option<&Mapping> {
        let place = self.mappings.partition_point(|mapping| mapping.start <= address);
        self.mappings[..place].last().filter(|mapping| address < mapping.end)
    }

    /// The program's file name without its folders: of the first file in memory.
    pub fn program(&self) -> &str {
        let files = self.mappings.iter().map(|mapping| &*mapping.file);
        let mut programs = files.filter(|path| path.starts_with('/') && !path.contains(".so"));
        programs.next().and_then(|path| path.rsplit('/').next()).unwrap_or_default()
    }
}

fn wrong(line: &str) -> String {
    format!("`{line}` makes no sense")
}

fn number<T: FromStr>(text: &str) -> Option<T> {
    text.trim().parse().ok()
}

fn address(text: &str) -> Option<u64> {
    u64::from_str_radix(text.trim_start_matches("0x"), 16).ok()
}

/// `LIVE: BYTES [ ALL: BYTES] @ FRAME...`
fn site(line: &str) -> Option<Site> {
    let (counts, frames) = line.split_once('@')?;
    let (live, rest) = counts.split_once(':')?;
    let (live_bytes, rest) = rest.split_once('[')?;
    let (allocs, rest) = rest.split_once(':')?;
    let alloc_bytes = rest.trim().strip_suffix(']')?;
    let site = Site {
        live: number(live)?,
        live_bytes: number(live_bytes)?,
        allocs: number(allocs)?,
        alloc_bytes: number(alloc_bytes)?,
        frames: frames.split_whitespace().map(address).collect::<Option<_>>()?,
        ..Site::default()
    };
    (site.allocs > 0 && site.live <= site.allocs).then_some(site)
}

/// `SITE in use: CPU NUMBER, thread NUMBER`
fn in_use(note: &str) -> Option<(u64, Place)> {
    let (name, rest) = note.split_once(" in use: CPU ")?;
    let (cpu, thread) = rest.split_once(", thread ")?;
    let cpu = if cpu == "-" { None } else { Some(number(cpu)?) };
    Some((address(name)?, Place { cpu, thread: number(thread)? }))
}

/// `of ALL freed: MANY on another CPU, MANY by another thread, after AGES`
fn fate(note: &str) -> Option<Fate> {
    let (all, rest) = note.strip_prefix("of ")?.split_once(" freed: ")?;
    let (other_cpu, rest) = rest.split_once(" on another CPU, ")?;
    let (other_thread, ages) = rest.split_once(" by another thread, after ")?;
    let ages = ages.split(' ').map(number).collect::<Option<_>>()?;
    let fate = Fate { other_cpu: number(other_cpu)?, other_thread: number(other_thread)?, ages };
    let all: u64 = number(all)?;
    let sound = fate.ages.len() == AGES && fate.freed() == all;
    (sound && fate.other_cpu.max(fate.other_thread) <= all).then_some(fate)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "heap profile: 2: 2048 [ 5: 5120] @ heap_v2/524288\n\
        2: 2048 [ 4: 4096] @ 0x55d0c8f3a1b2 0x7f1c2e42724a\n\
        # of 2 freed: 1 on another CPU, 0 by another thread, after 0 0 1 0 1 0 0 0 0\n\
        # site 0x7f1c2a001440\n\
        0: 0 [ 1: 1024] @\n\
        # 0x7f1c2a001440 in use: CPU 3, thread 4711\n\
        # 0x7f1c2a001980 in use: CPU 3, thread 4711\n\
        # 0x7f1c2a001440 in use: CPU -, thread 12\n\
        # 7 samples were not taken, for want of memory\n\
        # what a later version has to say\n\
        \n\
        MAPPED_LIBRARIES:\n\
        55d0c8f3a000-55d0c8f3b000 r-xp 00001000 fe:00 42                 /bin/a program\n\
        7f1c2e400000-7f1c2e500000 r-xp 00000000 00:00 0 \n";

    #[test]
    fn a_text_is_what_the_allocator_wrote() {
        let text = Text::parse(TEXT).unwrap();
        assert_eq!((text.rate, text.lost), (524_288, 7));
        let frames = vec![0x55d0_c8f3_a1b2, 0x7f1c_2e42_724a];
        let fate = Fate { other_cpu: 1, other_thread: 0, ages: vec![0, 0, 1, 0, 1, 0, 0, 0, 0] };
        let places = [(None, 12), (Some(3), 4711)].map(|(cpu, thread)| (Place { cpu, thread }, 1)).into();
        let first = Site { live: 2, live_bytes: 2048, allocs: 4, alloc_bytes: 4096, frames, fate, places };
        assert_eq!(first.block(), 1024);
        assert_eq!(text.sites, [first, Site { allocs: 1, alloc_bytes: 1024, ..Site::default() }]);
        assert_eq!(text.mapping_of(0x55d0_c8f3_a1b2).unwrap().file, "/bin/a program");
        assert_eq!(text.mapping_of(0x7f1c_2e42_724a).unwrap().file, "");
        for outside in [0, 0x55d0_c8f3_9fff, 0x55d0_c8f3_b000, u64::MAX] {
            assert_eq!(text.mapping_of(outside), None);
        }
        assert_eq!(text.program(), "a program");
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        for (was, is, said) in [
            ("heap profile", "cpu profile", "`cpu profile: 2"),
            ("heap_v2/524288", "heap_v2/0", "heap_v2/0` makes"),
            ("heap_v2", "growthz", "growthz/524288` makes"),
            ("0: 0 [ 1: 1024] @", "0: 0 [ 0: 0] @", "`0: 0 [ 0: 0] @` makes"),
            ("2: 2048 [ 4", "9: 9216 [ 4", "`9: 9216 [ 4: 4096] @ 0x"),
            ("0x7f1c2e42724a", "main", "@ 0x55d0c8f3a1b2 main` makes"),
            ("# of 2 freed", "# of 3 freed", "`# of 3 freed: 1 on"),
            ("1 on another CPU", "3 on another CPU", "`# of 2 freed: 3 on"),
            ("after 0 0", "after x 0", "thread, after x 0 1"),
            ("# site 0x7f1c2a001440", "# site main", "`# site main` makes"),
            (
                "CPU 3, thread 4711\n# 0x7f1c2a001980",
                "CPU x, thread 4711\n# 0x7f1c2a001980",
                "CPU x, thread 4711` makes",
            ),
            ("CPU -, thread 12", "CPU -, by 12", "CPU -, by 12` makes"),
            ("# 7 samples", "# many samples", "`# many samples"),
            ("7f1c2e400000-", "7f1c2e400000", "r-xp 00000000 00:00 0 ` makes"),
            ("MAPPED_LIBRARIES", "MAPPED", "cut off"),
        ] {
            let error = Text::parse(&TEXT.replace(was, is)).unwrap_err();
            assert!(error.contains(said), "{said}: {error}");
        }
    }
}
