//! Files that may be compressed: by gzip or by Zstandard, told apart from plain ones by their first bytes.

use flate2::Compression;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;
use ruzstd::decoding::StreamingDecoder;
use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::path::Path;

/// Endings of compressed files.
pub const ENDINGS: [&str; 2] = [".zst", ".gz"];

/// Bytes beyond which no file is unpacked: a small one can stand for more than any memory holds.
const MOST_BYTES: u64 = 8 << 30;

/// The contents of a file, unpacked.
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    unpacked(BufReader::new(File::open(path)?))
}

/// What is read from `file`, unpacked.
pub fn unpacked(mut file: impl Read) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    file.by_ref().take(4).read_to_end(&mut head)?;
    let whole = head.as_slice().chain(file);
    match head.as_slice() {
        [0x1f, 0x8b, ..] => all(MultiGzDecoder::new(whole)),
        [0x28, 0xb5, 0x2f, 0xfd] => all(StreamingDecoder::new(whole).map_err(io::Error::other)?),
        _ => all(whole),
    }
}

fn all(source: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let length = source.take(MOST_BYTES + 1).read_to_end(&mut bytes)?;
    if length as u64 > MOST_BYTES {
        return Err(io::Error::other(format!("more than {MOST_BYTES} bytes when unpacked")));
    }
    Ok(bytes)
}

/// The bytes, packed by gzip. The same bytes each time: no name and no date is in them.
pub fn gzip(bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes)?;
    encoder.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn what_was_packed_is_read_as_what_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let text = "one row like another\n".repeat(10_000).into_bytes();
        // Two streams in one file, as `gzip -c >>` makes them.
        let (first, second) = text.split_at(777);
        let two = [gzip(first).unwrap(), gzip(second).unwrap()].concat();
        let zstd = ruzstd::encoding::compress_to_vec(&text[..], ruzstd::encoding::CompressionLevel::Fastest);
        for packed in [text.clone(), gzip(&text).unwrap(), two, zstd] {
            fs::write(&path, &packed).unwrap();
            assert!(read(&path).unwrap() == text);
            if packed != text {
                assert!(packed.len() < text.len() / 10);
                fs::write(&path, &packed[..packed.len() - 9]).unwrap();
                assert!(read(&path).is_err(), "cut off");
            }
        }
        for short in [&b""[..], b"\x1f", b"row"] {
            fs::write(&path, short).unwrap();
            assert_eq!(read(&path).unwrap(), short);
        }
    }
}
