//! The bytes of an exported file, described in docs/exports.md.

use std::io::{self, BufWriter, Write};

use aquatic_common::config::{ExportCompression, ExportFormat};
use flate2::Compression;
use flate2::write::GzEncoder;

use super::ExportedTorrent;

/// Size of the buffer in front of the file or the compression.
const BUFFER: usize = 64 * 1024;

/// Writes torrents to a file. They come in ascending order of their info hashes, each once.
#[derive(Debug)]
pub struct Exporter<W: Write> {
    format: ExportFormat,
    out: Sink<W>,
    torrents: u64,
}

#[derive(Debug)]
enum Sink<W: Write> {
    Plain(BufWriter<W>),
    Gzip(BufWriter<GzEncoder<W>>),
}

impl<W: Write> Sink<W> {
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Plain(out) => out.write_all(bytes),
            Self::Gzip(out) => out.write_all(bytes),
        }
    }

    fn finish(self) -> io::Result<()> {
        match self {
            Self::Plain(out) => out.into_inner().map_err(io::IntoInnerError::into_error)?.flush(),
            Self::Gzip(out) => {
                let encoder = out.into_inner().map_err(io::IntoInnerError::into_error)?;
                encoder.finish()?.flush()
            }
        }
    }
}

impl<W: Write> Exporter<W> {
    /// Begins a file.
    ///
    /// # Errors
    /// Those of writing.
    pub fn begin(out: W, format: ExportFormat, compression: ExportCompression) -> io::Result<Self> {
        let mut out = match compression {
            ExportCompression::None => Sink::Plain(BufWriter::with_capacity(BUFFER, out)),
            // Info hashes cannot be compressed, and the rest by any level.
            ExportCompression::Gzip => {
                Sink::Gzip(BufWriter::with_capacity(BUFFER, GzEncoder::new(out, Compression::fast())))
            }
        };
        if format == ExportFormat::Bencode {
            out.write_all(b"d5:filesd")?;
        }
        Ok(Self { format, out, torrents: 0 })
    }

    /// Writes a torrent.
    ///
    /// # Errors
    /// Those of writing.
    pub fn torrent(&mut self, torrent: &ExportedTorrent) -> io::Result<()> {
        let ExportedTorrent { info_hash, complete, incomplete, downloaded } = torrent;
        // Longer than any torrent, so writing to it does not fail.
        let mut buffer = [0; 128];
        let mut rest = &mut buffer[..];
        match self.format {
            ExportFormat::Bencode => {
                rest.write_all(b"20:")?;
                rest.write_all(&info_hash.0)?;
                write!(
                    rest,
                    "d8:completei{complete}e10:downloadedi{downloaded}e10:incompletei{incomplete}ee"
                )?;
            }
            ExportFormat::Text => {
                for byte in info_hash.0 {
                    write!(rest, "{byte:02x}")?;
                }
                writeln!(rest, "\t{complete}\t{incomplete}\t{downloaded}")?;
            }
        }
        let left = rest.len();
        self.torrents += 1;
        self.out.write_all(buffer.get(..buffer.len() - left).unwrap_or_default())
    }

    /// Ends the file and returns the number of torrents.
    ///
    /// # Errors
    /// Those of writing.
    pub fn finish(mut self) -> io::Result<u64> {
        if self.format == ExportFormat::Bencode {
            self.out.write_all(b"ee")?;
        }
        self.out.finish()?;
        Ok(self.torrents)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use aquatic_common::InfoHash;

    use super::*;

    const TORRENTS: [ExportedTorrent; 2] = [
        ExportedTorrent { info_hash: InfoHash([b'a'; 20]), complete: 1, incomplete: 0, downloaded: 7 },
        ExportedTorrent {
            info_hash: InfoHash([0xff; 20]),
            complete: u32::MAX,
            incomplete: u32::MAX,
            downloaded: u32::MAX,
        },
    ];

    fn export(format: ExportFormat, compression: ExportCompression) -> Vec<u8> {
        let mut file = Vec::new();
        let mut exporter = Exporter::begin(&mut file, format, compression).unwrap();
        TORRENTS.iter().for_each(|torrent| exporter.torrent(torrent).unwrap());
        assert_eq!(exporter.finish().unwrap(), 2);
        file
    }

    #[test]
    fn bencode_is_a_full_scrape() {
        let mut expected =
            b"d5:filesd20:aaaaaaaaaaaaaaaaaaaad8:completei1e10:downloadedi7e10:incompletei0ee20:".to_vec();
        expected.extend([0xff; 20]);
        expected.extend(b"d8:completei4294967295e10:downloadedi4294967295e10:incompletei4294967295eeee");
        assert_eq!(export(ExportFormat::Bencode, ExportCompression::None), expected);
    }

    #[test]
    fn text_has_a_line_for_each_torrent() {
        let text = String::from_utf8(export(ExportFormat::Text, ExportCompression::None)).unwrap();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], format!("{}\t1\t0\t7", "61".repeat(20)));
        assert_eq!(lines[1], format!("{}\t4294967295\t4294967295\t4294967295", "ff".repeat(20)));
    }

    #[test]
    fn gzip_has_the_same_content() {
        for format in [ExportFormat::Bencode, ExportFormat::Text] {
            let compressed = export(format, ExportCompression::Gzip);
            let mut content = Vec::new();
            flate2::read::GzDecoder::new(compressed.as_slice()).read_to_end(&mut content).unwrap();
            assert_eq!(content, export(format, ExportCompression::None));
        }
    }

    #[test]
    fn an_empty_tracker_has_an_empty_dictionary() {
        let mut file = Vec::new();
        let exporter = Exporter::begin(&mut file, ExportFormat::Bencode, ExportCompression::None).unwrap();
        assert_eq!(exporter.finish().unwrap(), 0);
        assert_eq!(file, b"d5:filesdee");
    }
}
