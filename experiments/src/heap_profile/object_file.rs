//! Executables and shared libraries: their build ids, and the functions and lines of addresses in them.

use addr2line::{Loader, demangle_auto};
use object::{Object, ObjectSegment, ObjectSymbol, SymbolKind};
use std::borrow::Cow;
use std::fs;
use std::path::{Path, PathBuf};

/// A function at an address: several where some are inlined.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frame {
    /// As a reader of the source knows it.
    pub name: String,
    /// As the linker knows it.
    pub linked: String,
    /// Empty: not known.
    pub file: String,
    /// 0: not known.
    pub line: u32,
}

/// A file that code was mapped from. Of one that cannot be read, nothing is known.
#[derive(Default)]
pub struct ObjectFile {
    /// In hexadecimal; empty if it has none.
    pub build_id: String,
    segments: Vec<Segment>,
    /// By address.
    symbols: Vec<Symbol>,
    /// What knows lines and inlined functions.
    lines: Option<Loader>,
}

/// A part of the file that is loaded.
struct Segment {
    address: u64,
    offset: u64,
    bytes: u64,
}

struct Symbol {
    address: u64,
    bytes: u64,
    name: String,
}

/// Where Debian and Fedora put what debuggers need, by build id.
const DEBUG_FILES: &str = "/usr/lib/debug/.build-id";

impl ObjectFile {
    /// Reads the file.
    pub fn read(path: &Path) -> ObjectFile {
        let Ok(bytes) = fs::read(path) else { return ObjectFile::default() };
        let Ok(object) = object::File::parse(&*bytes) else { return ObjectFile::default() };
        let id = object.build_id().ok().flatten().unwrap_or_default();
        let build_id: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
        let segments = object.segments().map(|segment| {
            let (offset, bytes) = segment.file_range();
            Segment { address: segment.address(), offset, bytes }
        });
        let debug = debug_file(&build_id).filter(|file| file.exists());
        let lines = Loader::new(debug.as_deref().unwrap_or(path)).ok();
        ObjectFile { segments: segments.collect(), symbols: symbols(&object), lines, build_id }
    }

    /// The functions at an offset in the file, innermost first. None if nothing is known of it.
    pub fn frames(&self, offset: u64) -> Vec<Frame> {
        let within = |segment: &&Segment| (segment.offset..segment.offset + segment.bytes).contains(&offset);
        let Some(segment) = self.segments.iter().find(within) else { return Vec::new() };
        let address = segment.address + (offset - segment.offset);
        let mut frames = self.described(address);
        // The outermost is the function that has a symbol. Who is inlined and has no name is of no use.
        if frames.last().is_none_or(|frame| frame.name.is_empty()) {
            let position = frames.pop().unwrap_or_default();
            frames.extend(self.symbol(address).map(|name| Frame {
                name: demangled(name),
                linked: name.to_owned(),
                ..position
            }));
        }
        frames.retain(|frame| !frame.name.is_empty());
        frames
    }

    /// What debug information says.
    fn described(&self, address: u64) -> Vec<Frame> {
        let mut frames = Vec::new();
        let found = self.lines.as_ref().and_then(|lines| lines.find_frames(address).ok());
        let Some(mut found) = found else { return frames };
        while let Ok(Some(frame)) = found.next() {
            let name = |name: Option<Cow<'_, str>>| name.map(Cow::into_owned).unwrap_or_default();
            let function = frame.function.as_ref();
            let place = frame.location.as_ref();
            frames.push(Frame {
                name: name(function.and_then(|function| function.demangle().ok())),
                linked: name(function.and_then(|function| function.raw_name().ok())),
                file: place.and_then(|place| place.file).unwrap_or_default().to_owned(),
                line: place.and_then(|place| place.line).unwrap_or(0),
            });
        }
        frames
    }

    /// The symbol at an address. One without a size reaches to the next.
    fn symbol(&self, address: u64) -> Option<&str> {
        let end = self.symbols.partition_point(|symbol| symbol.address <= address);
        let symbol = self.symbols[..end].last()?;
        (symbol.bytes == 0 || address - symbol.address < symbol.bytes).then_some(&symbol.name)
    }
}

fn demangled(name: &str) -> String {
    demangle_auto(Cow::Borrowed(name), None).into_owned()
}

/// Where debug information is that was taken out of a file.
fn debug_file(build_id: &str) -> Option<PathBuf> {
    let (folder, name) = build_id.split_at_checked(2)?;
    Some(Path::new(DEBUG_FILES).join(folder).join(format!("{name}.debug")))
}

/// The functions of both tables of symbols. Of several at an address, one with a size.
fn symbols(object: &object::File) -> Vec<Symbol> {
    let all = object.symbols().chain(object.dynamic_symbols());
    let functions = all.filter(|symbol| symbol.kind() == SymbolKind::Text && symbol.is_definition());
    let mut symbols: Vec<_> = functions
        .filter_map(|symbol| {
            let name = symbol.name().ok().filter(|name| !name.is_empty())?.to_owned();
            Some(Symbol { address: symbol.address(), bytes: symbol.size(), name })
        })
        .collect();
    symbols.sort_by(|one, other| (one.address, one.bytes, &one.name).cmp(&(other.address, other.bytes, &other.name)));
    symbols
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The offset in this program's file of a function in it.
    fn offset_of(function: *const ()) -> u64 {
        let maps = fs::read_to_string("/proc/self/maps").unwrap();
        let mut offsets = maps.lines().filter_map(|line| {
            let mut words = line.split_whitespace();
            let (start, end) = words.next()?.split_once('-')?;
            let [start, end, offset] = [start, end, words.nth(1)?].map(|word| u64::from_str_radix(word, 16).unwrap());
            (start..end).contains(&(function as u64)).then(|| function as u64 - start + offset)
        });
        offsets.next().unwrap()
    }

    #[inline(never)]
    fn sought() -> u32 {
        std::hint::black_box(line!())
    }

    #[test]
    fn a_function_of_this_program_is_found_with_its_line() {
        let line = sought();
        let own = ObjectFile::read(&std::env::current_exe().unwrap());
        let frames = own.frames(offset_of(sought as *const ()));
        let frame = frames.last().unwrap();
        assert!(frame.name.ends_with("object_file::tests::sought"), "{frames:?}");
        assert!(frame.linked.starts_with("_R") || frame.linked.starts_with("_ZN"), "{frames:?}");
        assert!(frame.file.ends_with("heap_profile/object_file.rs"), "{frames:?}");
        assert!((line - 1..=line).contains(&frame.line), "{line}: {frames:?}");
        // By its symbol alone.
        let bare = ObjectFile { lines: None, ..own };
        let frames = bare.frames(offset_of(sought as *const ()));
        assert!(frames.len() == 1 && frames[0].name.ends_with("::sought") && frames[0].line == 0, "{frames:?}");
        assert_eq!(bare.frames(u64::MAX), []);
    }

    #[test]
    fn of_no_object_nothing_is_known() {
        for path in ["/nonexistent", "/", "/proc/self/maps", concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")] {
            let none = ObjectFile::read(Path::new(path));
            assert_eq!((none.build_id.as_str(), none.frames(0)), ("", vec![]), "{path}");
        }
    }
}
