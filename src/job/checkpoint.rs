//! What of a job is done, on disk.
//!
//! ```text
//! <output>.work/
//!   plan.json        what the job is; written first
//!   bucket-<n>       records by address
//!   partition.json   the buckets are complete
//!   result-<n>       unsigned syntheses of bucket n, whole or not there
//!   numbers.json     the sequence numbers taken for the result
//! ```
//!
//! Each file appears under its name only when it is whole and synced, so a killed job leaves nothing
//! that looks done and is not; buckets are trusted once `partition.json` is there.

use super::partition::{Layout, RECORD_BYTES, Record};
use super::{JobError, io_error};
use crate::packet::Id;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Changes when the files of a work folder do.
pub const WORK_VERSION: u32 = 1;

/// What a job is: a resumed one must be the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    pub version: u32,
    /// Names, sizes and times of change of the input.
    pub input: String,
    pub view: Id,
    pub author: Id,
    /// Unix ms; `None` is the largest `observed at` of the input.
    pub as_of: Option<u64>,
    /// (index, count) of the part of the address space.
    pub shard: (u32, u32),
    pub checks_signatures: bool,
    pub layout: Layout,
}

/// What the first pass found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Partitioned {
    /// Records per bucket.
    pub lengths: Vec<u64>,
    /// Largest `observed at` of all packets, Unix ms.
    pub latest_ms: u64,
    pub packets: u64,
    /// Syntheses in the input, which are not evidence.
    pub syntheses: u64,
    pub rejected: u64,
}

/// The sequence numbers of a result.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Numbers {
    pub first: u32,
    pub count: u32,
}

/// The folder of one job.
pub struct Work {
    folder: PathBuf,
}

impl Work {
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Opens the folder for `plan`. With `resume` a folder of the same job is gone on with (its plan
    /// is returned: the layout may differ); else whatever is there is removed.
    ///
    /// # Errors
    /// I/O; a folder of another job, or of another version.
    pub fn open(folder: &Path, plan: &Plan, resume: bool) -> Result<(Work, Plan), JobError> {
        let work = Work { folder: folder.into() };
        if resume && let Some(found) = work.read::<Plan>("plan.json")? {
            let expected = Plan { layout: found.layout, ..plan.clone() };
            if found != expected {
                let problem = "is of another job: other input, view, author, time, shard or version";
                return Err(JobError::Checkpoint { path: folder.into(), problem: problem.into() });
            }
            return Ok((work, found));
        }
        if folder.exists() {
            fs::remove_dir_all(folder).map_err(io_error(folder))?;
        }
        fs::create_dir_all(folder).map_err(io_error(folder))?;
        work.write("plan.json", plan)?;
        Ok((work, plan.clone()))
    }

    /// A small file, `None` where it is not there.
    ///
    /// # Errors
    /// I/O; damage.
    pub fn read<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, JobError> {
        let path = self.folder.join(name);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(JobError::Io { path, source }),
        };
        match serde_json::from_slice(&text) {
            Ok(value) => Ok(Some(value)),
            Err(error) => Err(JobError::Checkpoint { path, problem: format!("is damaged: {error}") }),
        }
    }

    /// Writes a small file, whole or not at all.
    ///
    /// # Errors
    /// I/O.
    pub fn write(&self, name: &str, value: &impl Serialize) -> Result<(), JobError> {
        let path = self.folder.join(name);
        let text = serde_json::to_vec(value)
            .map_err(|error| JobError::Io { path: path.clone(), source: io::Error::other(error) })?;
        self.replace(&path, &[&text])
    }

    /// Keeps the syntheses of one bucket.
    ///
    /// # Errors
    /// I/O.
    pub fn write_result(&self, bucket: usize, records: &[Record]) -> Result<(), JobError> {
        let bytes: &[u8] = bytemuck::cast_slice(records);
        let check = blake3::hash(bytes);
        self.replace(&self.result_path(bucket), &[bytes, check.as_bytes()])
    }

    /// The syntheses of one bucket, `None` where they are not done.
    ///
    /// # Errors
    /// I/O; damage.
    pub fn read_result(&self, bucket: usize) -> Result<Option<Vec<Record>>, JobError> {
        let path = self.result_path(bucket);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(JobError::Io { path, source }),
        };
        let body = bytes.len().checked_sub(32).filter(|body| body % RECORD_BYTES == 0);
        match body.map(|body| bytes.split_at(body)) {
            Some((body, check)) if blake3::hash(body).as_bytes() == check => {
                Ok(Some(body.chunks_exact(RECORD_BYTES).map(bytemuck::pod_read_unaligned).collect()))
            }
            _ => Err(JobError::Checkpoint { path, problem: "is damaged".into() }),
        }
    }

    /// Whether the syntheses of a bucket are there.
    pub fn has_result(&self, bucket: usize) -> bool {
        self.result_path(bucket).exists()
    }

    /// Removes the folder: the result is in its place. The plan goes first, so that a job that is
    /// killed meanwhile leaves a folder that nobody goes on with.
    ///
    /// # Errors
    /// I/O.
    pub fn remove(self) -> Result<(), JobError> {
        let plan = self.folder.join("plan.json");
        let forget = || -> io::Result<()> {
            fs::remove_file(&plan)?;
            File::open(&self.folder)?.sync_all()
        };
        forget().map_err(io_error(&plan))?;
        fs::remove_dir_all(&self.folder).map_err(io_error(&self.folder))
    }

    fn result_path(&self, bucket: usize) -> PathBuf {
        self.folder.join(format!("result-{bucket:04}"))
    }

    fn replace(&self, path: &Path, parts: &[&[u8]]) -> Result<(), JobError> {
        let part = path.with_extension("part");
        let write = || -> io::Result<()> {
            let mut file = File::create(&part)?;
            parts.iter().try_for_each(|bytes| file.write_all(bytes))?;
            file.sync_all()?;
            fs::rename(&part, path)?;
            File::open(&self.folder)?.sync_all()
        };
        write().map_err(io_error(path))
    }
}
