//! From what the processes of a program wrote to one profile of pprof's, with the names of functions.
//!
//! A block is a sample with probability `1 - exp(-bytes / rate)`. So each sample stands for so many blocks as that is the
//! inverse of (Horvitz and Thompson, 1952), and sums have no bias. All blocks of a site have the same size.
//!
//! Code is named by its file and the offset in it, so that what two processes do at the same place of a program is the
//! same for a reader, wherever the kernel put it.

use super::object_file::{Frame, ObjectFile};
use super::pprof::{Function, Label, Line, Location, Mapping, Profile, Sample, Strings, ValueType};
use super::text::{self, Text};
use crate::mappings;
use perseq::live::FIRST_AGE;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// What a process wrote.
pub struct Process {
    pub id: u32,
    pub text: Text,
    /// Where its files are: its root.
    pub root: PathBuf,
}

/// What the values of a sample are, and in what. Those from [`FREED`] on are of what was freed, as far as it is known how.
pub const VALUES: [(&str, &str); 10] = [
    ("inuse_objects", "count"),
    ("inuse_space", "bytes"),
    ("alloc_objects", "count"),
    ("alloc_space", "bytes"),
    ("freed_objects", "count"),
    ("freed_space", "bytes"),
    ("freed_on_other_cpu_objects", "count"),
    ("freed_on_other_cpu_space", "bytes"),
    ("freed_by_other_thread_objects", "count"),
    ("freed_by_other_thread_space", "bytes"),
];
const FREED: usize = 4;
/// The value that a reader shows first.
const FIRST: &str = "inuse_space";
/// The label with the bytes of a block, and the one with the process.
pub const BLOCK: &str = "bytes";
const PROCESS: &str = "process";
/// The label of samples that were freed, by nothing but how long they lived: at least so many nanoseconds, and less than
/// ten times as many.
pub const LIFETIME: &str = "lifetime";
/// The labels of samples in use, by nothing but where they were allocated: the CPU, and the kernel's number of the thread.
pub const CPU: &str = "cpu";
pub const THREAD: &str = "thread";
/// In place of a stack for which there was no room.
const NO_STACK: &str = "[stacks for which there was no room]";

/// Functions that allocate and call nothing of a program's: who called them is who allocated.
pub const ALLOCATORS: &str = concat!(
    "malloc|calloc|realloc|reallocarray|memalign|aligned_alloc|posix_memalign|valloc|pvalloc",
    r"|operator new(\[\])?|std::__new_allocator<.*|__gnu_cxx::new_allocator<.*|std::allocator<.*>::allocate",
    r"|std::allocator_traits<.*>::allocate|std::_Vector_base<.*>::_M_(allocate|create_storage)",
    r"|__rust_alloc.*|__rust_realloc|__rustc::__rust_.*|<?alloc::alloc::.*|<?alloc::raw_vec::.*",
    r"|<?alloc::boxed::Box<.*>::(try_)?new(_uninit|_zeroed)?(_slice)?(_in)?",
    r"|<?alloc::vec::Vec<.*>::(try_)?(with_capacity|with_capacity_in|reserve|reserve_exact|push|push_mut)",
    r"|<?alloc::string::String>?::(with_capacity|reserve|push|push_str)",
    r"|<?alloc::collections::btree::node::.*>::new",
);

/// The probability that a block of so many bytes is a sample.
pub fn probability(bytes: f64, rate: f64) -> f64 {
    -(-bytes / rate).exp_m1()
}

/// The profile of all processes, taken at `time_nanos` since 1970. The notes are for whoever reads it.
pub fn join(processes: &[Process], time_nanos: i64, notes: &[String]) -> Profile {
    let mut join = Join::new();
    let samples = processes.iter().flat_map(|process| join.samples(process)).collect();
    let mut value = |(kind, unit)| {
        let strings = &mut join.strings;
        ValueType { kind: strings.place(kind), unit: strings.place(unit) }
    };
    let sample_type = VALUES.map(&mut value).to_vec();
    let period_type = Some(value(("space", "bytes")));
    Profile {
        sample_type,
        sample: samples,
        mapping: join.mappings,
        location: join.locations,
        function: join.functions,
        drop_frames: join.strings.place(ALLOCATORS),
        time_nanos,
        period_type,
        period: processes.first().map_or(0, |process| process.text.rate as i64),
        comment: notes.iter().map(|note| join.strings.place(note)).collect(),
        default_sample_type: join.strings.place(FIRST),
        string_table: join.strings.table(),
    }
}

/// What was written so far, and where it is.
struct Join {
    strings: Strings,
    objects: HashMap<String, ObjectFile>,
    mappings: Vec<Mapping>,
    locations: Vec<Location>,
    functions: Vec<Function>,
    /// By file and offset in it.
    mapping_ids: HashMap<(i64, u64), u64>,
    /// By mapping and address.
    location_ids: HashMap<(u64, u64), u64>,
    /// By what the linker calls it, and by file.
    function_ids: HashMap<(i64, i64), u64>,
}

impl Join {
    fn new() -> Join {
        Join {
            strings: Strings::new(),
            objects: HashMap::new(),
            mappings: Vec::new(),
            locations: Vec::new(),
            functions: Vec::new(),
            mapping_ids: HashMap::new(),
            location_ids: HashMap::new(),
            function_ids: HashMap::new(),
        }
    }

    fn samples(&mut self, Process { id, text, root }: &Process) -> Vec<Sample> {
        let name = format!("{} {id}", text.program());
        let process = Label { key: self.strings.place(PROCESS), text: self.strings.place(&name), ..Label::default() };
        let [block, bytes, lifetime, nanoseconds] =
            [BLOCK, "bytes", LIFETIME, "nanoseconds"].map(|text| self.strings.place(text));
        let samples = |site: &text::Site| {
            // All have as many bytes, but where there was no room for stacks: those stand for their mean.
            let weight = 1.0 / probability(site.block() as f64, text.rate as f64);
            let weigh = |value: u64| (value as f64 * weight).round() as i64;
            let location_id = match &site.frames[..] {
                [] => vec![self.named(NO_STACK)],
                frames => frames.iter().map(|frame| self.location(text, root, *frame)).collect(),
            };
            let label =
                vec![Label { key: block, number: site.block() as i64, unit: bytes, ..Label::default() }, process];
            let both = |samples: u64| [weigh(samples), weigh(samples * site.block())];
            let [other_cpu, other_thread] = [site.fate.other_cpu, site.fate.other_thread].map(both);
            let places = self.places(site);
            let placed: u64 = places.iter().map(|(_, count)| count).sum();
            // How many were freed is said with how long they lived, and where those in use were allocated with them, and
            // only there: values add up.
            let in_use = [site.live - placed, site.live_bytes - placed * site.block()];
            let value = [in_use[0], in_use[1], site.allocs, site.alloc_bytes].map(weigh);
            let value = value.into_iter().chain([0, 0]).chain(other_cpu).chain(other_thread).collect();
            let mut samples = vec![Sample { location_id: location_id.clone(), value, label: label.clone() }];
            for (place, count) in places {
                let mut value = vec![0; VALUES.len()];
                value[..FREED - 2].copy_from_slice(&both(count));
                let label = label.iter().copied().chain(place).collect();
                samples.push(Sample { location_id: location_id.clone(), value, label });
            }
            let mut least = 0;
            for age in &site.fate.ages {
                if *age > 0 {
                    let mut value = vec![0; VALUES.len()];
                    value[FREED..FREED + 2].copy_from_slice(&both(*age));
                    let lived = Label { key: lifetime, number: least as i64, unit: nanoseconds, ..Label::default() };
                    let label = label.iter().copied().chain([lived]).collect();
                    samples.push(Sample { location_id: location_id.clone(), value, label });
                }
                least = if least == 0 { FIRST_AGE } else { least * 10 };
            }
            samples
        };
        text.sites.iter().flat_map(samples).collect()
    }

    /// Labels of a site's samples in use, and how many have them: not more than are in use. Where blocks differ in size,
    /// none.
    fn places(&mut self, site: &text::Site) -> Vec<(Vec<Label>, u64)> {
        let mut left = if site.live_bytes == site.live * site.block() { site.live } else { 0 };
        let mut label = |key: &str, number: u32| {
            let [key, text] = [key, &number.to_string()].map(|text| self.strings.place(text));
            Label { key, text, ..Label::default() }
        };
        let places = site.places.iter().map(|(place, count)| {
            let count = (*count).min(left);
            left -= count;
            let labels = place.cpu.map(|cpu| label(CPU, cpu)).into_iter().chain([label(THREAD, place.thread)]);
            (labels.collect(), count)
        });
        places.filter(|(_, count)| *count > 0).collect()
    }

    /// The location of the call that returns to `returns`.
    fn location(&mut self, text: &Text, root: &Path, returns: u64) -> u64 {
        let address = returns.saturating_sub(1);
        let Some(found) = text.mapping_of(address) else { return self.place(0, address, |_| Vec::new()) };
        let mapping = self.mapping(found, root);
        let known = &self.mappings[mapping as usize - 1];
        // As if the file were where it was first seen.
        let here = known.memory_start + (address - found.start);
        let path = &found.file;
        self.place(mapping, here, |objects| {
            objects.get(path).map(|object| object.frames(found.offset + (address - found.start))).unwrap_or_default()
        })
    }

    /// A location that is no place in the code, but a word.
    fn named(&mut self, name: &str) -> u64 {
        self.place(0, 0, |_| vec![Frame { name: name.to_owned(), ..Frame::default() }])
    }

    fn place(
        &mut self,
        mapping: u64,
        address: u64,
        frames: impl FnOnce(&HashMap<String, ObjectFile>) -> Vec<Frame>,
    ) -> u64 {
        if let Some(id) = self.location_ids.get(&(mapping, address)) {
            return *id;
        }
        let frames = frames(&self.objects);
        if let Some(mapping) = mapping.checked_sub(1).map(|place| &mut self.mappings[place as usize]) {
            mapping.has_functions |= !frames.is_empty();
            mapping.has_filenames |= frames.iter().any(|frame| !frame.file.is_empty());
            mapping.has_line_numbers |= frames.iter().any(|frame| frame.line > 0);
            mapping.has_inline_frames |= frames.len() > 1;
        }
        let line = |frame: &Frame| Line { function_id: self.function(frame), line: frame.line.into() };
        let line = frames.iter().map(line).collect();
        let id = self.locations.len() as u64 + 1;
        self.locations.push(Location { id, mapping_id: mapping, address, line });
        self.location_ids.insert((mapping, address), id);
        id
    }

    fn function(&mut self, frame: &Frame) -> u64 {
        let strings = &mut self.strings;
        let [name, system_name, filename] = [&frame.name, &frame.linked, &frame.file].map(|text| strings.place(text));
        let next = self.functions.len() as u64 + 1;
        let id =
            *self.function_ids.entry((if system_name == 0 { name } else { system_name }, filename)).or_insert(next);
        if id == next {
            self.functions.push(Function { id, name, system_name, filename });
        }
        id
    }

    fn mapping(&mut self, found: &mappings::Mapping, root: &Path) -> u64 {
        let filename = self.strings.place(&found.file);
        if let Some(id) = self.mapping_ids.get(&(filename, found.offset)) {
            return *id;
        }
        // Names such as [vdso] are no files.
        let file = found.file.strip_prefix('/').map(|path| root.join(path));
        let read = || file.map_or_else(ObjectFile::default, |file| ObjectFile::read(&file));
        let object = self.objects.entry(found.file.clone()).or_insert_with(read);
        let build_id = self.strings.place(&object.build_id);
        let id = self.mappings.len() as u64 + 1;
        self.mappings.push(Mapping {
            id,
            memory_start: found.start,
            memory_limit: found.end,
            file_offset: found.offset,
            filename,
            build_id,
            ..Mapping::default()
        });
        self.mapping_ids.insert((filename, found.offset), id);
        id
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is in use is said with where it was allocated, as far as that is known, and never more than is in use.
    #[test]
    fn samples_in_use_have_labels() {
        let known = "# 0x40 in use: CPU 2, thread 7\n";
        let text = format!(
            "heap profile: 4: 4000 [ 5: 5000] @ heap_v2/1000\n4: 4000 [ 5: 5000] @ 0x1\n# site 0x40\n\
            1: 10 [ 2: 30] @\n# site 0x80\n{known}# 0x40 in use: CPU -, thread 8\n# 0x80 in use: CPU 2, thread 7\n"
        );
        let weight = 1.0 / (1.0 - (-1.0_f64).exp());
        for (more, [unknown, other, usual]) in [(0, [2, 1, 1]), (1, [1, 1, 2]), (2, [0, 1, 3]), (9, [0, 1, 3])] {
            let text = Text::parse(&format!("{text}{}\nMAPPED_LIBRARIES:\n", known.repeat(more))).unwrap();
            let profile = join(&[Process { id: 1, text, root: "/".into() }], 0, &[]);
            let labels = |sample: &Sample| {
                let labels = sample.label.iter().skip(2); // the bytes of a block, and the process
                labels.map(|label| [label.key, label.text].map(|text| profile.text(text)).join("=")).collect::<Vec<_>>()
            };
            let expected = [(unknown, vec![]), (other, vec!["thread=8"]), (usual, vec!["cpu=2", "thread=7"])];
            for (sample, (count, expected)) in profile.sample.iter().zip(expected) {
                let weighed = |value: i32| (f64::from(value) * weight).round() as i64;
                assert_eq!(
                    (&sample.value[..2], labels(sample)),
                    (
                        &[weighed(count), weighed(count * 1000)][..],
                        expected.iter().map(|text| (*text).to_owned()).collect()
                    )
                );
            }
            // All that is said of it is in the first, and blocks of several sizes have no labels.
            assert_eq!(
                profile.sample.iter().map(|sample| sample.value[2] > 0).collect::<Vec<_>>(),
                [true, false, false, true]
            );
            assert!(labels(&profile.sample[3]).is_empty());
        }
    }

    fn process(id: u32, at: u64) -> Process {
        let text = format!(
            "heap profile: 0: 0 [ 0: 0] @ heap_v2/1000\n1: 1000 [ 3: 3000] @ {:#x} {:#x}\n\
             # of 2 freed: 1 on another CPU, 2 by another thread, after 1 0 1 0 0 0 0 0 0\n0: 0 [ 1: 64] @\n\n\
             MAPPED_LIBRARIES:\n{at:x}-{:x} r-xp 00000000 00:00 0 /nonexistent/program\n",
            at + 0x11,
            at + 0x2000,
            at + 0x1000,
        );
        Process { id, text: Text::parse(&text).unwrap(), root: "/".into() }
    }

    #[test]
    fn samples_stand_for_as_many_as_their_probability_says() {
        let profile = join(&[process(1, 0x40_0000)], 5, &["a note".to_owned()]);
        let weight = 1.0 / (1.0 - (-1.0_f64).exp());
        let weighed = |values: [f64; 10]| values.map(|value| (value * weight).round() as i64);
        let first = weighed([1.0, 1000.0, 3.0, 3000.0, 0.0, 0.0, 1.0, 1000.0, 2.0, 2000.0]);
        assert_eq!(profile.sample[0].value, first);
        // Each of those that were freed with its age.
        for (sample, lived) in profile.sample[1..3].iter().zip([0, 100_000]) {
            assert_eq!(sample.value, weighed([0.0, 0.0, 0.0, 0.0, 1.0, 1000.0, 0.0, 0.0, 0.0, 0.0]));
            let label = sample.label.last().unwrap();
            assert_eq!(
                (profile.text(label.key), label.number, profile.text(label.unit)),
                (LIFETIME, lived, "nanoseconds")
            );
        }
        // One of 64 bytes for about 16.
        assert_eq!(profile.sample[3].value, [0, 0, 16, 1032, 0, 0, 0, 0, 0, 0]);
        let kinds: Vec<_> = profile.sample_type.iter().map(|kind| profile.text(kind.kind)).collect();
        assert_eq!(kinds, VALUES.map(|(kind, _)| kind));
        assert_eq!((profile.period, profile.time_nanos), (1000, 5));
        assert_eq!(profile.text(profile.comment[0]), "a note");
        let labels: Vec<_> = profile.sample[0].label.iter().map(|label| profile.text(label.key)).collect();
        assert_eq!(labels, [BLOCK, PROCESS]);
        assert_eq!(profile.sample[0].label[0].number, 1000);
        assert_eq!(profile.text(profile.sample[0].label[1].text), "program 1");
    }

    #[test]
    fn the_same_code_in_two_processes_is_one_location() {
        let profile = join(&[process(1, 0x40_0000), process(2, 0x70_0000)], 0, &[]);
        assert_eq!(profile.mapping.len(), 1);
        assert_eq!(profile.sample[0].location_id[0], profile.sample[4].location_id[0]);
        // The second frame is in no mapping: an address is all that is known of it.
        assert_ne!(profile.sample[0].location_id[1], profile.sample[4].location_id[1]);
        let location = |id: u64| profile.location.iter().find(|location| location.id == id).unwrap();
        let [first, second] = [0, 1].map(|place| location(profile.sample[4].location_id[place]));
        assert_eq!((first.mapping_id, first.address), (1, 0x40_0010));
        assert_eq!((second.mapping_id, second.address), (0, 0x70_1fff));
        let nameless = location(profile.sample[3].location_id[0]);
        assert_eq!(profile.text(profile.function[nameless.line[0].function_id as usize - 1].name), NO_STACK);
    }
}
