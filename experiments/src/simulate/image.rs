//! The guest's files, as an archive that the kernel unpacks into memory (the format `newc` of cpio).

use crate::peers::probe;
use std::fs;
use std::path::Path;

/// Files that grow to an archive.
#[derive(Clone, Debug, Default)]
pub struct Image {
    bytes: Vec<u8>,
    entries: u32,
    libraries: Vec<String>,
}

const FOLDER: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
const DEVICE: u32 = 0o020_600;

impl Image {
    /// This binary as `/init`, with the loader and libraries that this process has loaded. The error says which file
    /// cannot be read.
    pub fn of_this_binary() -> Result<Image, String> {
        let mut image = Image::default();
        ["dev", "proc", "sys", "tmp", "lib64", "lib"].iter().for_each(|name| image.entry(name, FOLDER, &[], [0, 0]));
        image.entry("dev/console", DEVICE, &[], [5, 1]);
        image.entry("init", PROGRAM, &read(Path::new("/proc/self/exe"))?, [0, 0]);
        probe::loaded().iter().try_for_each(|library| image.library(library))?;
        Ok(image)
    }

    /// A library, or the loader, where `/init` looks for it by the name that it has here. One that is there already stays.
    pub fn library(&mut self, library: &Path) -> Result<(), String> {
        let place = place(library);
        if !self.libraries.contains(&place) {
            self.entry(&place[1..], PROGRAM, &read(library)?, [0, 0]);
            self.libraries.push(place);
        }
        Ok(())
    }

    /// One more file.
    pub fn file(&mut self, name: &str, contents: &[u8]) {
        self.entry(name, PROGRAM, contents, [0, 0]);
    }

    /// The archive, ended.
    pub fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, &[], [0, 0]);
        self.bytes
    }

    fn entry(&mut self, name: &str, mode: u32, contents: &[u8], device: [u32; 2]) {
        self.entries += 1;
        let (length, name_length) = (contents.len() as u32, name.len() as u32 + 1);
        let fields = [self.entries, mode, 0, 0, 1, 0, length, 0, 0, device[0], device[1], name_length, 0]
            .map(|field| format!("{field:08X}"));
        self.bytes.extend(b"070701");
        self.bytes.extend(fields.concat().as_bytes());
        self.bytes.extend(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend(contents);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    fs::read(path).map_err(|error| format!("{}: {error}", path.display()))
}

/// The path that a library has in the guest. The loader's stands in the binary; it looks for the others in `/lib`.
pub fn place(library: &Path) -> String {
    let name = library.file_name().unwrap_or_default().to_string_lossy();
    format!("/{}/{name}", if name.starts_with("ld-") { "lib64" } else { "lib" })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Offsets of the format: names at 110, contents at the next multiple of 4.
    #[test]
    fn an_archive_has_the_fields_of_newc() {
        let mut image = Image::default();
        image.file("a/b", b"hello");
        let bytes = image.finish();
        assert_eq!(&bytes[..6], b"070701");
        let field = |at: usize| u32::from_str_radix(std::str::from_utf8(&bytes[6 + 8 * at..14 + 8 * at]).unwrap(), 16);
        assert_eq!([field(0), field(1), field(6), field(11)], [Ok(1), Ok(PROGRAM), Ok(5), Ok(4)]);
        assert_eq!(&bytes[110..114], b"a/b\0");
        assert_eq!(&bytes[116..121], b"hello");
        let trailer = &bytes[124..];
        assert!(trailer.starts_with(b"070701") && trailer[110..].starts_with(b"TRAILER!!!\0"));
        assert!(bytes.len().is_multiple_of(4));
    }

    #[test]
    fn this_binary_brings_its_libraries() {
        let mut image = Image::of_this_binary().unwrap();
        assert!(image.libraries.iter().any(|name| name.starts_with("/lib/libc.so")), "{:?}", image.libraries);
        assert!(image.libraries.iter().any(|name| name.starts_with("/lib64/ld-")), "{:?}", image.libraries);
        let before = image.bytes.len();
        image.library(&probe::loaded()[0]).unwrap();
        assert_eq!(image.bytes.len(), before, "it was there");
        let image = image.finish();
        assert!(image.windows(12).any(|window| window == b"dev/console\0"));
    }
}
