//! Where the packets of a job come from, read in blocks.
//!
//! Packet files are read, not mapped: a mapped file that shrinks kills the process, a read says where
//! it ended, and sequential reads of some megabytes are as fast.

use super::{JobError, io_error};
use crate::limits::PACKET_BYTES;
use crate::packet::{FILE_HEADER_BYTES, Id, PacketFile};
use crate::store::{DiskStore, PacketStore};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Packets read at a time: 8 MiB.
pub const BLOCK_PACKETS: usize = 1 << 14;

/// A block of raw packets and where it stood.
pub struct Block {
    /// The file, or the folder of a store.
    pub path: PathBuf,
    /// Byte of the first packet in its file; packets lie one behind the other. Zero for a store.
    pub offset: u64,
    /// n x 512 bytes.
    pub bytes: Vec<u8>,
    /// Whether a store had checked the signatures already.
    pub checked: bool,
}

/// What a job reads.
#[derive(Debug)]
pub enum Input {
    /// Packet files in ascending order of name.
    Files(Vec<PathBuf>),
    /// The folder of a store.
    Store(PathBuf),
}

impl Input {
    /// A packet file, a folder of packet files, or the folder of a store.
    ///
    /// # Errors
    /// Nothing of the kind is there.
    pub fn find(path: &Path) -> Result<Input, JobError> {
        let problem = |problem: &str| JobError::Input { path: path.into(), problem: problem.into() };
        let metadata = path.metadata().map_err(io_error(path))?;
        if !metadata.is_dir() {
            return Ok(Input::Files(vec![path.into()]));
        }
        if path.join("FORMAT").exists() {
            return Ok(Input::Store(path.into()));
        }
        let mut files = Vec::new();
        for entry in path.read_dir().map_err(io_error(path))? {
            let file = entry.map_err(io_error(path))?.path();
            if file.extension().is_some_and(|extension| extension == "qpk") {
                files.push(file);
            }
        }
        files.sort();
        if files.is_empty() {
            return Err(problem("neither a store nor a folder with packet files (*.qpk)"));
        }
        Ok(Input::Files(files))
    }

    /// Packets that the input announces, and what tells it from another one: names, sizes, times of
    /// change. Packet files must all be of `schema`.
    ///
    /// # Errors
    /// A file that is no packet file, is truncated, or has packets of another schema.
    pub fn describe(&self, schema: &Id) -> Result<(u64, String), JobError> {
        match self {
            Input::Files(files) => {
                let mut packets = 0;
                let mut identity = String::new();
                for path in files {
                    let file = PacketFile::open(path)?;
                    if file.schema != *schema {
                        let problem = "its packets are of another schema than the domain's: name their domain file with --domain";
                        return Err(JobError::Input { path: path.clone(), problem: problem.into() });
                    }
                    packets += file.count;
                    let changed = path.metadata().and_then(|m| m.modified()).map_err(io_error(path))?;
                    let changed = changed.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
                    identity += &format!("{} {} {}\n", path.display(), file.count, changed.as_nanos());
                }
                Ok((packets, identity))
            }
            Input::Store(path) => {
                let (store, _) = DiskStore::open(path)?;
                let mailboxes = store.addresses()?;
                let packets = mailboxes.iter().map(|(_, stat)| stat.packets).sum();
                Ok((packets, format!("{} {packets} {}\n", path.display(), store.start().epoch)))
            }
        }
    }

    /// Gives every block to `take`, in order, until it returns `false`.
    ///
    /// # Errors
    /// I/O; a file that has become shorter than it was.
    pub fn read(&self, mut take: impl FnMut(Block) -> bool) -> Result<(), JobError> {
        match self {
            Input::Files(files) => {
                for path in files {
                    if !read_file(path, &mut take)? {
                        break;
                    }
                }
                Ok(())
            }
            Input::Store(path) => read_store(path, &mut take),
        }
    }
}

/// Whether `take` wants more.
fn read_file(path: &Path, take: &mut impl FnMut(Block) -> bool) -> Result<bool, JobError> {
    let count = PacketFile::open(path)?.count as usize;
    let mut file = File::open(path).map_err(io_error(path))?;
    file.read_exact(&mut [0; FILE_HEADER_BYTES]).map_err(io_error(path))?;
    for first in (0..count).step_by(BLOCK_PACKETS) {
        let mut bytes = vec![0; PACKET_BYTES * (count - first).min(BLOCK_PACKETS)];
        let offset = (FILE_HEADER_BYTES + first * PACKET_BYTES) as u64;
        file.read_exact(&mut bytes).map_err(|source| match source.kind() {
            std::io::ErrorKind::UnexpectedEof => JobError::Input {
                path: path.into(),
                problem: format!("ended after byte {offset}: it has become shorter while it was read"),
            },
            _ => JobError::Io { path: path.into(), source },
        })?;
        if !take(Block { path: path.into(), offset, bytes, checked: false }) {
            return Ok(false);
        }
    }
    Ok(true)
}

fn read_store(path: &Path, take: &mut impl FnMut(Block) -> bool) -> Result<(), JobError> {
    let (store, _) = DiskStore::open(path)?;
    let mut bytes = Vec::with_capacity(PACKET_BYTES * BLOCK_PACKETS);
    let mut give = |bytes: Vec<u8>| take(Block { path: path.into(), offset: 0, bytes, checked: true });
    for (address, _) in store.addresses()? {
        let mut cursor = None;
        loop {
            let page = store.pull(&address, cursor, BLOCK_PACKETS)?;
            for packet in &page.packets {
                bytes.extend_from_slice(packet.as_bytes());
                if bytes.len() == PACKET_BYTES * BLOCK_PACKETS && !give(std::mem::take(&mut bytes)) {
                    return Ok(());
                }
            }
            if !page.more {
                break;
            }
            cursor = Some(page.cursor);
        }
    }
    if !bytes.is_empty() {
        give(bytes);
    }
    Ok(())
}
