//! Packets under their addresses, in buckets of neighbouring addresses.

use super::{JobError, io_error};
use crate::address::Address;
use crate::limits::PACKET_SIGNED_BYTES;
use bytemuck::{Pod, Zeroable};
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

/// A packet at one of its addresses; its signature has been checked or was not wanted.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub struct Record {
    pub address: Address,
    /// Bytes 0..448 of the packet.
    pub bytes: [u8; PACKET_SIGNED_BYTES],
}

/// Bytes of a record.
pub const RECORD_BYTES: usize = size_of::<Record>();
/// Most buckets: each needs a buffer and, while it is written, an open file.
pub const BUCKETS_MAX: u64 = 512;
/// Largest buffer of a bucket, in bytes.
const BUFFER_BYTES_MAX: usize = 1 << 20;

/// How records are cut into buckets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Layout {
    /// A power of two; bucket b holds the addresses whose first bits are b.
    pub buckets: u64,
    /// Whether buckets stay in memory.
    pub in_memory: bool,
}

impl Layout {
    /// For about so many records and at most so many bytes of memory: everything in memory where that
    /// takes less than half of it, else buckets of an eighth.
    pub fn for_records(records: u64, memory_bytes: u64) -> Layout {
        let bytes = records.saturating_mul(RECORD_BYTES as u64);
        let in_memory = bytes <= memory_bytes / 2;
        // In memory too several buckets, so that one can be worked on while the next one waits.
        let wanted = bytes.div_ceil((memory_bytes / 8).max(1)).max(1);
        Layout { buckets: wanted.next_power_of_two().min(BUCKETS_MAX), in_memory }
    }

    fn bucket(&self, address: &Address) -> usize {
        let prefix = u64::from(u16::from_be_bytes([address[0], address[1]]));
        ((prefix * self.buckets) >> 16) as usize
    }
}
const _: () = assert!(BUCKETS_MAX <= 1 << 16);

/// Buckets that are being filled.
pub struct Partition {
    layout: Layout,
    folder: PathBuf,
    buffers: Vec<Vec<Record>>,
    files: Vec<File>,
    lengths: Vec<u64>,
    buffer_records: usize,
}

impl Partition {
    /// Files of a layout that is not in memory come into `folder`, which exists.
    ///
    /// # Errors
    /// I/O.
    pub fn create(layout: Layout, folder: &Path, memory_bytes: u64) -> Result<Partition, JobError> {
        let mut files = Vec::new();
        if !layout.in_memory {
            for bucket in 0..layout.buckets {
                let path = bucket_path(folder, bucket);
                let file = OpenOptions::new().create(true).write(true).truncate(true).open(&path);
                files.push(file.map_err(io_error(&path))?);
            }
        }
        let share = (memory_bytes / 4 / layout.buckets) as usize;
        Ok(Partition {
            layout,
            folder: folder.into(),
            buffers: vec![Vec::new(); layout.buckets as usize],
            files,
            lengths: vec![0; layout.buckets as usize],
            buffer_records: (share.min(BUFFER_BYTES_MAX) / RECORD_BYTES).max(8),
        })
    }

    /// # Errors
    /// I/O.
    pub fn add(&mut self, record: &Record) -> Result<(), JobError> {
        let bucket = self.layout.bucket(&record.address);
        self.buffers[bucket].push(*record);
        self.lengths[bucket] += 1;
        if !self.layout.in_memory && self.buffers[bucket].len() >= self.buffer_records {
            self.flush(bucket)?;
        }
        Ok(())
    }

    fn flush(&mut self, bucket: usize) -> Result<(), JobError> {
        let path = bucket_path(&self.folder, bucket as u64);
        self.files[bucket].write_all(bytemuck::cast_slice(&self.buffers[bucket])).map_err(io_error(&path))?;
        self.buffers[bucket].clear();
        Ok(())
    }

    /// Writes and syncs what is left; gives the buckets.
    ///
    /// # Errors
    /// I/O.
    pub fn finish(mut self) -> Result<Buckets, JobError> {
        if self.layout.in_memory {
            return Ok(Buckets { lengths: self.lengths, place: Place::Memory(self.buffers) });
        }
        for bucket in 0..self.files.len() {
            self.flush(bucket)?;
            let path = bucket_path(&self.folder, bucket as u64);
            self.files[bucket].sync_all().map_err(io_error(&path))?;
        }
        Ok(Buckets { lengths: self.lengths, place: Place::Folder(self.folder) })
    }
}

/// Buckets that are complete.
pub struct Buckets {
    /// Records per bucket.
    pub lengths: Vec<u64>,
    place: Place,
}

enum Place {
    Memory(Vec<Vec<Record>>),
    Folder(PathBuf),
}

impl Buckets {
    /// The buckets that an earlier run left in a folder.
    ///
    /// # Errors
    /// A file is missing or has another length.
    pub fn reopen(folder: &Path, lengths: Vec<u64>) -> Result<Buckets, JobError> {
        for (bucket, &length) in lengths.iter().enumerate() {
            let path = bucket_path(folder, bucket as u64);
            let found = path.metadata().map_err(io_error(&path))?.len();
            if found != length * RECORD_BYTES as u64 {
                let problem = format!("{found} bytes where {length} records were written");
                return Err(JobError::Checkpoint { path, problem });
            }
        }
        Ok(Buckets { lengths, place: Place::Folder(folder.into()) })
    }

    /// The records of one bucket, in no order; from memory only once.
    ///
    /// # Errors
    /// I/O.
    pub fn take(&mut self, bucket: usize) -> Result<Vec<Record>, JobError> {
        match &mut self.place {
            Place::Memory(buckets) => Ok(std::mem::take(&mut buckets[bucket])),
            Place::Folder(folder) => {
                let path = bucket_path(folder, bucket as u64);
                let mut records = vec![Record::zeroed(); self.lengths[bucket] as usize];
                let read = File::open(&path)
                    .and_then(|mut file| file.read_exact(bytemuck::cast_slice_mut(&mut records)));
                read.map_err(io_error(&path))?;
                Ok(records)
            }
        }
    }
}

fn bucket_path(folder: &Path, bucket: u64) -> PathBuf {
    folder.join(format!("bucket-{bucket:04}"))
}
