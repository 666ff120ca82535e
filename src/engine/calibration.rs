//! What a job costs on the CPU and on the GPU: measured once per adapter, driver, instructions and
//! threads, then kept in the user's cache.
//!
//! The model has one line per computation and side:
//!
//! - merge: fixed + packets x packet cost + pairs x pair cost, where packets are those that the spans
//!   read, each once per span; on the GPU also bytes x upload cost where the columns are not there yet
//! - fingerprint and embedding (full metric): fixed + rows x row cost, transfers included
//!
//! The smaller prediction wins. Costs are those of jobs in which every packet counts; a kernel that
//! reaches few of them makes both sides faster. Under a diagonal metric a row is 128 products, less
//! than its way over the bus, so `auto` leaves these to the CPU without measuring.

use super::probe::{Probe, measure};
use crate::gpu::GpuError;
use serde::{Deserialize, Serialize};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

/// Of the file; another one is measured anew.
pub const VERSION: u32 = 1;
/// Largest file that is read.
const FILE_BYTES_MAX: u64 = 1 << 16;
/// No fixed cost is longer, no item costs more: what says so was not measured here.
const SECONDS_MAX: f64 = 60.0;

/// What a calibration was measured with; with another of these it does not hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    pub adapter: String,
    pub driver: String,
    /// [`super::Instructions::name`].
    pub instructions: String,
    pub threads: usize,
}

/// Seconds of a merge.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MergeCost {
    /// Of a job with one packet and one question.
    pub fixed_s: f64,
    pub packet_s: f64,
    pub pair_s: f64,
}

/// Seconds of a computation on rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RowCost {
    /// Of a job with one row.
    pub fixed_s: f64,
    pub row_s: f64,
}

/// What one side's jobs cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Costs {
    pub merge: MergeCost,
    pub fingerprint: RowCost,
    /// Under a full metric.
    pub embed: RowCost,
    /// Per byte of columns that must be brought there first; 0 on the CPU.
    pub upload_byte_s: f64,
}

/// The costs of both sides on one machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Calibration {
    pub version: u32,
    pub machine: Machine,
    pub cpu: Costs,
    pub gpu: Costs,
}

/// How large a job is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    Merge {
        /// Packets read, once per span.
        packets: u64,
        pairs: u64,
        /// Bytes of columns that the GPU does not have yet.
        upload_bytes: u64,
    },
    Fingerprint {
        rows: u64,
    },
    /// Under a full metric.
    Embed {
        rows: u64,
    },
}

impl Costs {
    /// Seconds that a job takes, by the model.
    pub fn seconds(&self, size: Size) -> f64 {
        let rows = |cost: RowCost, rows: u64| cost.fixed_s + rows as f64 * cost.row_s;
        match size {
            Size::Merge { packets, pairs, upload_bytes } => {
                self.merge.fixed_s
                    + packets as f64 * self.merge.packet_s
                    + pairs as f64 * self.merge.pair_s
                    + upload_bytes as f64 * self.upload_byte_s
            }
            Size::Fingerprint { rows: n } => rows(self.fingerprint, n),
            Size::Embed { rows: n } => rows(self.embed, n),
        }
    }

    fn all(&self) -> [f64; 8] {
        let Costs { merge, fingerprint, embed, upload_byte_s } = *self;
        [
            merge.fixed_s,
            merge.packet_s,
            merge.pair_s,
            fingerprint.fixed_s,
            fingerprint.row_s,
            embed.fixed_s,
            embed.row_s,
            upload_byte_s,
        ]
    }
}

/// Where a calibration came from, and what somebody should know of it.
#[derive(Clone, Debug)]
pub struct Found {
    pub calibration: Calibration,
    /// Whether it was measured now.
    pub measured: bool,
    /// A cache that was damaged or cannot be written, in one line.
    pub note: Option<String>,
}

impl Calibration {
    /// Whether the GPU is the faster side for a job, by the model.
    pub fn prefers_gpu(&self, size: Size) -> bool {
        self.gpu.seconds(size) < self.cpu.seconds(size)
    }

    /// The kept calibration of this machine, or a new one, which is then kept. Without a folder it is
    /// not kept.
    ///
    /// # Errors
    /// The GPU fails while it is measured.
    pub(super) fn find(
        machine: Machine,
        folder: Option<&Path>,
        cpu: &dyn Probe,
        gpu: &dyn Probe,
    ) -> Result<Found, GpuError> {
        let path = folder.map(|folder| folder.join(file_name(&machine)));
        let mut note = None;
        match path.as_deref().map(|path| read(path, &machine)) {
            None | Some(Ok(None)) => {}
            Some(Ok(Some(calibration))) => return Ok(Found { calibration, measured: false, note }),
            Some(Err(reason)) => note = Some(reason),
        }
        let (cpu, gpu) = (measure(cpu)?, measure(gpu)?);
        let calibration = Calibration { version: VERSION, machine, cpu, gpu };
        if let Some(path) = path
            && let Err(error) = write(&path, &calibration)
        {
            let line = format!("{}: {error}; the crossover is measured anew next time", path.display());
            note.get_or_insert(line);
        }
        Ok(Found { calibration, measured: true, note })
    }

    /// Removes what was kept of this machine, so that it is measured anew.
    pub(super) fn forget(machine: &Machine, folder: &Path) {
        // What cannot be removed is read again: the older measurement, not a wrong one.
        let _ = std::fs::remove_file(folder.join(file_name(machine)));
    }

    /// Whether the numbers can have been measured.
    fn is_sound(&self) -> bool {
        let costs = self.cpu.all().into_iter().chain(self.gpu.all());
        let mut costs = costs.map(|seconds| (0.0..=SECONDS_MAX).contains(&seconds));
        self.version == VERSION && costs.all(|sound| sound)
    }
}

/// `$XDG_CACHE_HOME/qis`, else `$HOME/.cache/qis`; `None` where there is neither.
pub fn folder() -> Option<PathBuf> {
    let path = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let cache = path("XDG_CACHE_HOME").or_else(|| path("HOME").map(|home| home.join(".cache")))?;
    Some(cache.join("qis"))
}

fn file_name(machine: &Machine) -> String {
    let Machine { adapter, driver, instructions, threads } = machine;
    let name = format!("{adapter}\0{driver}\0{instructions}\0{threads}");
    let digest = blake3::derive_key("qis 1 crossover file", name.as_bytes());
    format!("crossover-{}.json", crate::packet::hex(&digest[..8]))
}

/// `None` where there is no file; the line for people where it is not what this machine wrote.
fn read(path: &Path, machine: &Machine) -> Result<Option<Calibration>, String> {
    let say = |what: String| format!("{}: {what}; the crossover is measured anew", path.display());
    let mut text = String::new();
    let file = match std::fs::File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(|error| say(error.to_string()))?,
    };
    file.take(FILE_BYTES_MAX).read_to_string(&mut text).map_err(|error| say(error.to_string()))?;
    let read: Result<Calibration, _> = serde_json::from_str(&text);
    let calibration = read.map_err(|error| say(format!("not a calibration: {error}")))?;
    if calibration.machine != *machine || !calibration.is_sound() {
        return Err(say("a calibration of another machine or version".into()));
    }
    Ok(Some(calibration))
}

/// Whole or not at all: another process may read at any time.
fn write(path: &Path, calibration: &Calibration) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)?;
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    serde_json::to_writer_pretty(&mut file, calibration)?;
    file.flush()?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Metric;
    use crate::merge::Job;
    use ndarray::ArrayView2;
    use std::cell::Cell;
    use std::time::Duration;

    /// A side that says how long it would have taken, and computes nothing.
    #[derive(Default)]
    struct Said {
        jobs: Cell<u32>,
        launch: Duration,
        pair_s: f64,
    }

    impl Said {
        fn pass(&self, pairs: u64) -> Result<Duration, GpuError> {
            self.jobs.set(self.jobs.get() + 1);
            Ok(self.launch + Duration::from_secs_f64(pairs as f64 * self.pair_s))
        }
    }

    impl Probe for Said {
        fn merge(&self, job: &Job) -> Result<Duration, GpuError> {
            job.check();
            self.pass(job.pairs())
        }
        fn fingerprint(&self, _: ArrayView2<i8>) -> Result<Duration, GpuError> {
            self.pass(0)
        }
        fn embed(&self, metric: &Metric, _: ArrayView2<i8>) -> Result<Duration, GpuError> {
            assert!(metric.is_sound());
            self.pass(0)
        }
    }

    fn machine(adapter: &str) -> Machine {
        Machine { adapter: adapter.into(), driver: "1".into(), instructions: "avx2".into(), threads: 2 }
    }

    fn merge(packets: u64, pairs: u64) -> Size {
        Size::Merge { packets, pairs, upload_bytes: 0 }
    }

    /// A launch of half a millisecond and pairs a tenth of the CPU's: the crossover lies where the model
    /// must find it.
    #[test]
    fn the_model_finds_the_crossover() {
        let cpu = Said { pair_s: 2e-9, ..Said::default() };
        let gpu = Said { launch: Duration::from_micros(500), pair_s: 0.2e-9, ..Said::default() };
        let found = Calibration::find(machine("a"), None, &cpu, &gpu).unwrap();
        assert!(found.measured && found.note.is_none());
        let calibration = found.calibration;
        assert!(calibration.is_sound(), "{calibration:?}");
        // 1.8 ns a pair pay for 500 us from 278,000 pairs on.
        assert!(!calibration.prefers_gpu(merge(1_000, 270_000)), "{calibration:?}");
        assert!(calibration.prefers_gpu(merge(1_000, 290_000)), "{calibration:?}");
        let cost = calibration.gpu.seconds(merge(100_000, 100_000_000));
        assert!((cost - 0.0205).abs() < 1e-4, "{cost} {calibration:?}");
    }

    #[test]
    fn it_is_kept_and_what_is_not_ours_is_measured_anew() {
        let folder = tempfile::tempdir().unwrap();
        let (cpu, gpu) = (Said::default(), Said::default());
        let find = |name: &str| Calibration::find(machine(name), Some(folder.path()), &cpu, &gpu).unwrap();
        let first = find("a");
        assert!(first.measured);
        let jobs = cpu.jobs.get();
        let again = find("a");
        assert!(!again.measured && again.note.is_none());
        assert_eq!(again.calibration.machine, first.calibration.machine);
        assert_eq!(cpu.jobs.get(), jobs, "nothing was run");
        assert!(find("b").measured, "another adapter has a file of its own");

        let path = folder.path().join(file_name(&machine("a")));
        let whole = std::fs::read_to_string(&path).unwrap();
        let other = first.calibration.clone();
        let texts = [
            whole[..whole.len() / 2].to_string(),
            String::new(),
            "\u{0}".repeat(100),
            serde_json::to_string(&Calibration { version: VERSION + 1, ..other.clone() }).unwrap(),
            serde_json::to_string(&Calibration { machine: machine("c"), ..other.clone() }).unwrap(),
            whole.replacen("\"fixed_s\": ", "\"fixed_s\": -1", 1),
            " ".repeat(FILE_BYTES_MAX as usize + 10) + &whole,
        ];
        for text in texts {
            std::fs::write(&path, &text).unwrap();
            let found = find("a");
            assert!(found.measured, "{text}");
            let note = found.note.expect("a line for people");
            assert!(note.contains("measured anew") && !note.contains('\n'), "{note}");
            assert!(find("a").note.is_none(), "the file is whole again");
        }
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_a_note() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let side = Said::default();
        let found = Calibration::find(machine("a"), Some(&file.path().join("no")), &side, &side).unwrap();
        assert!(found.measured && found.note.is_some());
    }
}
