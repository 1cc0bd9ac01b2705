//! The messages of pprof's `profile.proto`, as far as they are written here, and files of them, packed by gzip.
//!
//! Fields are numbered as in <https://github.com/google/pprof/blob/main/proto/profile.proto>, which says what they mean.

use crate::compressed;
use crate::failure::Failure;
use prost::Message;
use std::collections::HashMap;
use std::fs;
use std::path::Path;

#[derive(Clone, PartialEq, Message)]
pub struct Profile {
    #[prost(message, repeated, tag = "1")]
    pub sample_type: Vec<ValueType>,
    #[prost(message, repeated, tag = "2")]
    pub sample: Vec<Sample>,
    #[prost(message, repeated, tag = "3")]
    pub mapping: Vec<Mapping>,
    #[prost(message, repeated, tag = "4")]
    pub location: Vec<Location>,
    #[prost(message, repeated, tag = "5")]
    pub function: Vec<Function>,
    /// The first is empty.
    #[prost(string, repeated, tag = "6")]
    pub string_table: Vec<String>,
    #[prost(int64, tag = "7")]
    pub drop_frames: i64,
    #[prost(int64, tag = "9")]
    pub time_nanos: i64,
    #[prost(message, optional, tag = "11")]
    pub period_type: Option<ValueType>,
    #[prost(int64, tag = "12")]
    pub period: i64,
    #[prost(int64, repeated, tag = "13")]
    pub comment: Vec<i64>,
    #[prost(int64, tag = "14")]
    pub default_sample_type: i64,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub struct ValueType {
    #[prost(int64, tag = "1")]
    pub kind: i64,
    #[prost(int64, tag = "2")]
    pub unit: i64,
}

#[derive(Clone, PartialEq, Message)]
pub struct Sample {
    /// Innermost first.
    #[prost(uint64, repeated, tag = "1")]
    pub location_id: Vec<u64>,
    #[prost(int64, repeated, tag = "2")]
    pub value: Vec<i64>,
    #[prost(message, repeated, tag = "3")]
    pub label: Vec<Label>,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub struct Label {
    #[prost(int64, tag = "1")]
    pub key: i64,
    #[prost(int64, tag = "2")]
    pub text: i64,
    #[prost(int64, tag = "3")]
    pub number: i64,
    #[prost(int64, tag = "4")]
    pub unit: i64,
}

#[derive(Clone, PartialEq, Message)]
pub struct Mapping {
    #[prost(uint64, tag = "1")]
    pub id: u64,
    #[prost(uint64, tag = "2")]
    pub memory_start: u64,
    #[prost(uint64, tag = "3")]
    pub memory_limit: u64,
    #[prost(uint64, tag = "4")]
    pub file_offset: u64,
    #[prost(int64, tag = "5")]
    pub filename: i64,
    #[prost(int64, tag = "6")]
    pub build_id: i64,
    #[prost(bool, tag = "7")]
    pub has_functions: bool,
    #[prost(bool, tag = "8")]
    pub has_filenames: bool,
    #[prost(bool, tag = "9")]
    pub has_line_numbers: bool,
    #[prost(bool, tag = "10")]
    pub has_inline_frames: bool,
}

#[derive(Clone, PartialEq, Message)]
pub struct Location {
    #[prost(uint64, tag = "1")]
    pub id: u64,
    #[prost(uint64, tag = "2")]
    pub mapping_id: u64,
    #[prost(uint64, tag = "3")]
    pub address: u64,
    /// Functions inlined into each other, innermost first.
    #[prost(message, repeated, tag = "4")]
    pub line: Vec<Line>,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub struct Line {
    #[prost(uint64, tag = "1")]
    pub function_id: u64,
    #[prost(int64, tag = "2")]
    pub line: i64,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub struct Function {
    #[prost(uint64, tag = "1")]
    pub id: u64,
    #[prost(int64, tag = "2")]
    pub name: i64,
    #[prost(int64, tag = "3")]
    pub system_name: i64,
    #[prost(int64, tag = "4")]
    pub filename: i64,
}

/// Strings, each kept once.
pub struct Strings {
    table: Vec<String>,
    places: HashMap<String, i64>,
}

impl Strings {
    pub fn new() -> Strings {
        Strings { table: vec![String::new()], places: HashMap::from([(String::new(), 0)]) }
    }

    /// The place of `text` in the table.
    pub fn place(&mut self, text: &str) -> i64 {
        if let Some(place) = self.places.get(text) {
            return *place;
        }
        let place = self.table.len() as i64;
        self.table.push(text.to_owned());
        self.places.insert(text.to_owned(), place);
        place
    }

    /// The table.
    pub fn table(self) -> Vec<String> {
        self.table
    }
}

impl Profile {
    /// The string at a place of the table; empty if there is none.
    pub fn text(&self, place: i64) -> &str {
        usize::try_from(place).ok().and_then(|place| self.string_table.get(place)).map_or("", String::as_str)
    }

    /// Writes it to a file.
    pub fn write(&self, path: &Path) -> Result<(), Failure> {
        let packed = compressed::gzip(&self.encode_to_vec());
        let written = packed.and_then(|bytes| fs::write(path, bytes));
        written.map_err(|error| Failure::file(path, "write", error))
    }

    /// Reads one from a file.
    pub fn read(path: &Path) -> Result<Profile, Failure> {
        let bytes = compressed::read(path).map_err(|error| Failure::file(path, "read", error))?;
        let wrong = |why: String| Failure::file(path, "read", format!("no profile of pprof's: {why}"));
        let profile = Profile::decode(&bytes[..]).map_err(|error| wrong(error.to_string()))?;
        if profile.sample_type.is_empty() {
            return Err(wrong("it says of no value what it is".into()));
        }
        Ok(profile)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_string_is_kept_once() {
        let mut strings = Strings::new();
        assert_eq!([strings.place(""), strings.place("a"), strings.place("b"), strings.place("a")], [0, 1, 2, 1]);
        assert_eq!(strings.table(), ["", "a", "b"]);
    }

    #[test]
    fn what_is_no_profile_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("heap.pb.gz");
        let profile = Profile { sample_type: vec![ValueType { kind: 1, unit: 2 }], ..Profile::default() };
        profile.write(&path).unwrap();
        assert_eq!(Profile::read(&path).unwrap(), profile);
        for other in [&b""[..], b"heap profile: 1: 2 [ 1: 2] @ heap_v2/4096\n", b"\x1f\x8b"] {
            fs::write(&path, other).unwrap();
            assert!(Profile::read(&path).is_err(), "{other:?}");
        }
        assert!(Profile::read(&folder.path().join("none")).unwrap_err().to_string().contains("none: cannot read: "));
    }
}
