//! Sizes and ways: what differs between processors.
//!
//! Sizes and ways of caches are those that the processors report of themselves (`lscpu -C`), those of TLBs what the
//! vendors' optimization guides say. Where a processor does otherwise than the model can, the nearest is taken and said
//! at the geometry.

use crate::LINE_BYTES;
use std::fs;
use std::path::Path;

/// Sets and ways of a cache, in lines, or of a TLB, in pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shape {
    /// Sets. Any number: large last levels do not have a power of two.
    pub sets: usize,
    /// Entries of a set.
    pub ways: usize,
}

impl Shape {
    /// A cache of `bytes`, which are a multiple of its ways' lines.
    pub const fn cache(bytes: usize, ways: usize) -> Shape {
        let way = ways * LINE_BYTES as usize;
        assert!(bytes.is_multiple_of(way), "a cache is whole sets of whole lines");
        Shape { sets: bytes / way, ways }
    }

    /// A TLB of `entries`, a multiple of its ways.
    pub const fn tlb(entries: usize, ways: usize) -> Shape {
        assert!(entries.is_multiple_of(ways), "a TLB is whole sets");
        Shape { sets: entries / ways, ways }
    }

    /// Entries in all.
    pub const fn entries(self) -> usize {
        self.sets * self.ways
    }
}

/// What a last level holds, compared with the private caches above it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Inclusion {
    /// Everything they hold. A line that leaves it leaves them as well.
    Inclusive,
    /// Nothing they hold. A line enters when the last of them gives it up, and leaves when one of them takes it.
    Victim,
}

/// A processor, as far as it is modelled.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Geometry {
    /// Its name, as `named` knows it.
    pub name: String,
    /// First level for data, of each CPU.
    pub l1d: Shape,
    /// Second level, of each CPU. It holds all that the first does.
    pub l2: Shape,
    /// Last level, of each group of CPUs.
    pub llc: Shape,
    /// What the last level holds.
    pub inclusion: Inclusion,
    /// CPUs that share a last level, at most. None: all of a node.
    pub llc_cpus: Option<usize>,
    /// First level of translations, for data.
    pub dtlb: Shape,
    /// Second level of translations.
    pub stlb: Shape,
}

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

/// The names that [`Geometry::named`] knows.
pub const NAMES: &[&str] = &["zen3", "zen5", "sapphire-rapids", "neoverse-v2", "this-host"];

impl Geometry {
    /// The processor called `name`. The error names those there are, or says what this host does not tell of itself.
    pub fn named(name: &str) -> Result<Geometry, String> {
        let known = |l1d, l2, llc, llc_cpus, dtlb, stlb| Geometry {
            name: name.into(),
            l1d,
            l2,
            llc,
            inclusion: Inclusion::Victim,
            llc_cpus,
            dtlb,
            stlb,
        };
        Ok(match name {
            // EPYC 7003: eight cores share the last level of their complex.
            "zen3" => known(
                Shape::cache(32 * KIB, 8),
                Shape::cache(512 * KIB, 8),
                Shape::cache(32 * MIB, 16),
                Some(8),
                Shape::tlb(64, 64),
                Shape::tlb(2048, 8),
            ),
            // EPYC 9005, the cores that are not the dense ones.
            "zen5" => known(
                Shape::cache(48 * KIB, 12),
                Shape::cache(MIB, 16),
                Shape::cache(32 * MIB, 16),
                Some(8),
                Shape::tlb(96, 96),
                Shape::tlb(4096, 16),
            ),
            // Xeon 8480: 56 cores, 1.875 MiB of the last level for each, one group without sub-NUMA clustering. Its L2
            // need not hold all of its L1d; 48 KiB in 2 MiB make little of that. Stores have a TLB of 16 entries of
            // their own, which is not modelled.
            "sapphire-rapids" => known(
                Shape::cache(48 * KIB, 12),
                Shape::cache(2 * MIB, 16),
                Shape::cache(105 * MIB, 15),
                None,
                Shape::tlb(96, 6),
                Shape::tlb(2048, 16),
            ),
            // Graviton 4: 96 cores on one mesh, whose cache is 36 MiB.
            "neoverse-v2" => known(
                Shape::cache(64 * KIB, 4),
                Shape::cache(2 * MIB, 8),
                Shape::cache(36 * MIB, 16),
                None,
                Shape::tlb(48, 48),
                Shape::tlb(2048, 8),
            ),
            "this-host" => return Geometry::of_host(Path::new("/sys/devices/system/cpu/cpu0/cache")),
            _ => return Err(format!("no geometry `{name}`; expected one of {}", NAMES.join(", "))),
        })
    }

    /// What Linux says of the first CPU's caches, in a folder such as `/sys/devices/system/cpu/cpu0/cache`. It says
    /// nothing of TLBs, whose sizes are those of `sapphire-rapids`, nor of inclusion: the last level takes victims.
    pub fn of_host(folder: &Path) -> Result<Geometry, String> {
        let (l1d, l2) = (level(folder, 1)?.0, level(folder, 2)?.0);
        let (llc, cpus) = level(folder, 3)?;
        let other = Geometry::named("sapphire-rapids")?;
        Ok(Geometry { name: "this-host".into(), l1d, l2, llc, llc_cpus: Some(cpus), ..other })
    }
}

/// The shape of the data or unified cache of a level, and how many CPUs share it.
fn level(folder: &Path, level: u32) -> Result<(Shape, usize), String> {
    let entries = fs::read_dir(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    for entry in entries.flatten() {
        let read = |name: &str| {
            let path = entry.path().join(name);
            let text = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
            Ok::<_, String>((path, text.trim().to_owned()))
        };
        let number = |name: &str| {
            let (path, text) = read(name)?;
            let parsed = text.parse::<usize>().ok().filter(|number| *number > 0);
            parsed.ok_or_else(|| format!("{}: expected a number above 0, found `{text}`", path.display()))
        };
        if !entry.file_name().to_string_lossy().starts_with("index") || number("level")? != level as usize {
            continue;
        }
        if read("type")?.1 == "Instruction" {
            continue;
        }
        let line = number("coherency_line_size")?;
        if line as u64 != LINE_BYTES {
            return Err(format!("{}: lines of {line} bytes; expected {LINE_BYTES}", entry.path().display()));
        }
        let shape = Shape { sets: number("number_of_sets")?, ways: number("ways_of_associativity")? };
        let (path, list) = read("shared_cpu_list")?;
        let cpus = cpus(&list).ok_or_else(|| format!("{}: expected CPUs, found `{list}`", path.display()))?;
        return Ok((shape, cpus));
    }
    Err(format!("{}: no data cache of level {level}", folder.display()))
}

/// How many CPUs a list such as `0-3,8` names.
fn cpus(list: &str) -> Option<usize> {
    list.split(',').try_fold(0, |sum, part| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        Some(sum + last.checked_sub(first)? + 1)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_processors_have_the_sizes_they_are_sold_with() {
        let kib = |shape: Shape| shape.entries() * LINE_BYTES as usize / KIB;
        let sizes = |name: &str| {
            let it = Geometry::named(name).unwrap();
            [kib(it.l1d), kib(it.l2), kib(it.llc), it.dtlb.entries(), it.stlb.entries()]
        };
        assert_eq!(sizes("zen3"), [32, 512, 32 << 10, 64, 2048]);
        assert_eq!(sizes("zen5"), [48, 1024, 32 << 10, 96, 4096]);
        assert_eq!(sizes("sapphire-rapids"), [48, 2048, 105 << 10, 96, 2048]);
        assert_eq!(sizes("neoverse-v2"), [64, 2048, 36 << 10, 48, 2048]);
    }

    #[test]
    fn an_unknown_name_is_told_the_known_ones() {
        let error = Geometry::named("zen9").unwrap_err();
        assert!(error.contains("zen9") && NAMES.iter().all(|name| error.contains(name)), "{error}");
    }

    #[test]
    fn a_host_is_read_from_its_files() {
        let folder = tempfile::tempdir().unwrap();
        let cache = |index: u32, level: &str, kind: &str, sets: &str, ways: &str, cpus: &str| {
            let own = folder.path().join(format!("index{index}"));
            fs::create_dir(&own).unwrap();
            let files = [("level", level), ("type", kind), ("number_of_sets", sets), ("ways_of_associativity", ways)];
            let more = [("coherency_line_size", "64"), ("shared_cpu_list", cpus)];
            files.iter().chain(&more).for_each(|(name, text)| fs::write(own.join(name), format!("{text}\n")).unwrap());
        };
        cache(0, "1", "Instruction", "1", "1", "0");
        cache(1, "1", "Data", "64", "12", "0");
        cache(2, "2", "Unified", "2048", "16", "0");
        let error = Geometry::of_host(folder.path()).unwrap_err();
        assert!(error.contains("level 3"), "{error}");
        cache(3, "3", "Unified", "114688", "15", "0-3,8-11");
        let host = Geometry::of_host(folder.path()).unwrap();
        assert_eq!((host.l1d, host.l2), (Shape { sets: 64, ways: 12 }, Shape { sets: 2048, ways: 16 }));
        assert_eq!((host.llc, host.llc_cpus), (Shape { sets: 114_688, ways: 15 }, Some(8)));
        fs::write(folder.path().join("index3/number_of_sets"), "many").unwrap();
        let error = Geometry::of_host(folder.path()).unwrap_err();
        assert!(error.contains("number_of_sets") && error.contains("many"), "{error}");
    }
}
