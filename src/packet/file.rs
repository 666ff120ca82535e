//! Packet files (`.qpk`): a 512-byte header and n x 512 bytes, so that mapped packets stay aligned.
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 4 | magic `QISP` |
//! | 4 | 4 | version, 1 |
//! | 8 | 8 | number of packets |
//! | 16 | 32 | schema id |
//! | 48 | 32 | view id, or zeros |
//! | 80 | 432 | zeros |

use super::{Id, Packet, PacketError, Verified};
use crate::limits::PACKET_BYTES;
use std::fs::File;
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// Bytes before the first packet.
pub const FILE_HEADER_BYTES: usize = 512;
const FILE_MAGIC: &[u8; 4] = b"QISP";
const FILE_VERSION: u32 = 1;

/// Why a packet file cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    /// The file is something else, or of another version: nothing of it was used.
    #[error("{path}: {problem}")]
    Header { path: PathBuf, problem: String },
    /// The header announces more packets than the file has bytes for.
    #[error("{path}: truncated: the header announces {announced} packets, the file holds {held} whole ones")]
    Truncated { path: PathBuf, announced: u64, held: u64 },
    /// One packet is damaged.
    #[error("{path}: packet {index} (byte {offset}): {source}")]
    Packet { path: PathBuf, index: u64, offset: u64, source: PacketError },
}

/// Reads a packet file in order, with bounded memory.
#[derive(Debug)]
pub struct PacketFile {
    path: PathBuf,
    reader: io::BufReader<File>,
    pub schema: Id,
    /// Zeros where the packets belong to no particular view.
    pub view: Id,
    /// Packets announced by the header.
    pub count: u64,
    next: u64,
}

impl PacketFile {
    /// # Errors
    /// I/O; another format or version, by name; a file shorter or longer than its header says.
    pub fn open(path: &Path) -> Result<PacketFile, FileError> {
        let io = |source| FileError::Io { path: path.into(), source };
        let file = File::open(path).map_err(io)?;
        let metadata = file.metadata().map_err(io)?;
        if metadata.is_dir() {
            return Err(io(io::ErrorKind::IsADirectory.into()));
        }
        let length = metadata.len();
        let mut reader = io::BufReader::with_capacity(1 << 18, file);
        let mut header = [0u8; FILE_HEADER_BYTES];
        let problem = |problem: String| FileError::Header { path: path.into(), problem };
        if length < FILE_HEADER_BYTES as u64 {
            return Err(problem(format!("is not a packet file: {length} bytes, the header alone has 512")));
        }
        reader.read_exact(&mut header).map_err(io)?;
        if &header[..4] != FILE_MAGIC {
            return Err(problem("is not a packet file: it does not begin with `QISP`".into()));
        }
        let version = u32::from_le_bytes([header[4], header[5], header[6], header[7]]);
        if version != FILE_VERSION {
            return Err(problem(format!(
                "packet file of version {version}; this program reads version {FILE_VERSION}"
            )));
        }
        if header[80..].iter().any(|&b| b != 0) {
            return Err(problem("bytes 80..512 of the header are not zero".into()));
        }
        let mut count = [0; 8];
        count.copy_from_slice(&header[8..16]);
        let count = u64::from_le_bytes(count);
        let body = length - FILE_HEADER_BYTES as u64;
        if Some(body) != count.checked_mul(PACKET_BYTES as u64) {
            let held = body / PACKET_BYTES as u64;
            if held < count {
                return Err(FileError::Truncated { path: path.into(), announced: count, held });
            }
            return Err(problem(format!("{body} bytes of packets where the header announces {count}")));
        }
        let id = |at: usize| {
            let mut id = [0; 32];
            id.copy_from_slice(&header[at..at + 32]);
            id
        };
        Ok(PacketFile { path: path.into(), reader, schema: id(16), view: id(48), count, next: 0 })
    }

    /// The path it was opened by.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Fills `bytes` with the next packets as they lie in the file, at most so many, unchecked, and
    /// returns how many: 0 after the last. For readers that check whole blocks on several threads.
    ///
    /// # Errors
    /// I/O, which also ends the file.
    pub fn read_block(&mut self, packets: usize, bytes: &mut Vec<u8>) -> Result<usize, FileError> {
        let left = usize::try_from(self.count - self.next).unwrap_or(usize::MAX);
        let packets = packets.min(left);
        bytes.resize(packets * PACKET_BYTES, 0);
        self.next += packets as u64;
        if let Err(source) = self.reader.read_exact(bytes) {
            self.next = self.count;
            return Err(FileError::Io { path: self.path.clone(), source });
        }
        Ok(packets)
    }
}

impl FileError {
    /// Packet `index` of the file is damaged.
    pub fn packet(path: &Path, index: u64, source: PacketError) -> FileError {
        let offset = FILE_HEADER_BYTES as u64 + PACKET_BYTES as u64 * index;
        FileError::Packet { path: path.into(), index, offset, source }
    }
}

impl Iterator for PacketFile {
    type Item = Result<Packet, FileError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.next == self.count {
            return None;
        }
        let index = self.next;
        self.next += 1;
        let mut bytes = [0u8; PACKET_BYTES];
        if let Err(source) = self.reader.read_exact(&mut bytes) {
            self.next = self.count;
            return Some(Err(FileError::Io { path: self.path.clone(), source }));
        }
        Some(Packet::parse(&bytes).map_err(|source| FileError::packet(&self.path, index, source)))
    }
}

/// Writes a packet file; it appears under its name, whole, at [`PacketFileWriter::finish`]. Until
/// then it is `NAME.`, four letters, `.part` beside it: what a killed program leaves is known for it.
pub struct PacketFileWriter {
    path: PathBuf,
    writer: BufWriter<tempfile::NamedTempFile>,
    count: u64,
}

impl PacketFileWriter {
    /// # Errors
    /// I/O in the target's folder.
    pub fn create(path: &Path, schema: Id, view: Id) -> Result<PacketFileWriter, FileError> {
        let io = |source| FileError::Io { path: path.into(), source: unnamed(source) };
        if path.is_dir() {
            return Err(io(io::ErrorKind::IsADirectory.into()));
        }
        let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        // With the rest of the name, at most 255 bytes.
        let name: String = path.file_name().unwrap_or_default().to_string_lossy().chars().take(60).collect();
        let prefix = format!("{name}.");
        let file = tempfile::Builder::new().prefix(&prefix).rand_bytes(4).suffix(".part").tempfile_in(folder);
        let file = file.map_err(io)?;
        let mut writer = BufWriter::with_capacity(1 << 18, file);
        let mut header = [0u8; FILE_HEADER_BYTES];
        header[..4].copy_from_slice(FILE_MAGIC);
        header[4..8].copy_from_slice(&FILE_VERSION.to_le_bytes());
        header[16..48].copy_from_slice(&schema);
        header[48..80].copy_from_slice(&view);
        writer.write_all(&header).map_err(io)?;
        Ok(PacketFileWriter { path: path.into(), writer, count: 0 })
    }

    /// # Errors
    /// I/O.
    pub fn write(&mut self, packet: &Verified) -> Result<(), FileError> {
        self.count += 1;
        self.writer
            .write_all(packet.as_bytes())
            .map_err(|source| FileError::Io { path: self.path.clone(), source: unnamed(source) })
    }

    /// Writes the count, syncs, and puts the file in its place. Returns the number of packets.
    ///
    /// # Errors
    /// I/O; nothing is left under the target's name then.
    pub fn finish(self) -> Result<u64, FileError> {
        let path = self.path;
        let finish = || -> io::Result<()> {
            let mut file = self.writer.into_inner().map_err(|e| e.into_error())?;
            file.seek(SeekFrom::Start(8))?;
            file.write_all(&self.count.to_le_bytes())?;
            file.as_file().sync_all()?;
            file.persist(&path).map_err(|e| e.error)?;
            Ok(())
        };
        finish().map_err(|source| FileError::Io { path: path.clone(), source: unnamed(source) })?;
        Ok(self.count)
    }
}

/// The error without the name of the temporary file, which tells a person nothing.
fn unnamed(error: io::Error) -> io::Error {
    if error.raw_os_error().is_some() { error } else { error.kind().into() }
}
