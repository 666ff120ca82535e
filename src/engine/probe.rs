//! Measuring what jobs cost, on either side, in a fraction of a second.

use super::calibration::{Costs, MergeCost, RowCost};
use crate::domain::{Kernel, Metric};
use crate::gpu::GpuError;
use crate::limits::{SLOTS, WEIGHT_ONE};
use crate::merge::{Columns, Job, Span};
use ndarray::{Array2, ArrayView2, s};
use std::ops::Range;
use std::time::Duration;

/// One side of the engine, as it is measured: each call gives the time that it took.
pub(super) trait Probe {
    /// Computes the tallies of a job, and drops them.
    fn merge(&self, job: &Job) -> Result<Duration, GpuError>;
    fn fingerprint(&self, embeddings: ArrayView2<i8>) -> Result<Duration, GpuError>;
    fn embed(&self, metric: &Metric, signals: ArrayView2<i8>) -> Result<Duration, GpuError>;
}

/// Packets of the measured merges, and value columns: two outcomes.
const PACKETS: usize = 1 << 16;
const PACKETS_MIN: usize = 1 << 10;
const COLUMNS: usize = 4;
/// Questions of the largest one.
const QUERIES_MAX: usize = 4_096;
/// Rows of the largest fingerprint and embedding.
const ROWS_MAX: usize = 1 << 16;
/// A job so long is long enough to tell its items from its launch.
const LONG_ENOUGH: Duration = Duration::from_millis(4);
/// After so long one job is not measured again.
const REPEATS_FOR: Duration = Duration::from_millis(15);
const REPEATS_MAX: usize = 12;

/// The costs of one side.
///
/// # Errors
/// It fails.
pub(super) fn measure(side: &dyn Probe) -> Result<Costs, GpuError> {
    let columns = columns();
    let gains = vec![WEIGHT_ONE; PACKETS];
    let queries = slots(QUERIES_MAX);
    // Reaches all packets, so that none is passed over.
    let kernel = Kernel { shift: 13, table: table() };
    let timed = |columns: &Columns, queries_to: usize, packets: Range<usize>| {
        let span = [Span { queries: 0..queries_to, packets }];
        let job = Job {
            kernel: &kernel,
            columns,
            gains: &gains,
            queries: queries.slice(s![..queries_to, ..]),
            spans: &span,
            skip: false,
        };
        let (first, rest) = time(|| side.merge(&job))?;
        Ok::<_, GpuError>((seconds(first), seconds(rest)))
    };
    let (_, fixed) = timed(&columns, 1, 0..1)?;
    // Programs, pools and threads are awake after it.
    side.merge(&Job {
        kernel: &kernel,
        columns: &columns,
        gains: &gains,
        queries: queries.slice(s![..1, ..]),
        spans: &[Span { queries: 0..1, packets: 0..PACKETS }],
        skip: false,
    })?;
    // Columns that nobody has seen: what the first job takes longer than the next is their way there.
    let fresh = self::columns();
    let (first, one) = timed(&fresh, 1, 0..PACKETS)?;
    // A slow side is asked about fewer packets.
    let (mut read, mut single) = (PACKETS, one);
    while single > seconds(LONG_ENOUGH) && read > PACKETS_MIN {
        read /= 4;
        single = timed(&fresh, 1, 0..read)?.1;
    }
    let mut count = 8;
    let many = loop {
        let (_, many) = timed(&fresh, count, 0..read)?;
        if many > seconds(LONG_ENOUGH) + fixed || count == QUERIES_MAX {
            break many;
        }
        count = (4 * count).min(QUERIES_MAX);
    };
    let pair_s = ((many - single) / ((count - 1) * read) as f64).max(0.0);
    let bytes = upload_bytes(&fresh) as f64;
    let embeddings = slots(ROWS_MAX);
    let metric = Metric::Full { shift: 13, matrix: slots(SLOTS).into_raw_vec_and_offset().0 };
    Ok(Costs {
        merge: MergeCost {
            fixed_s: fixed,
            packet_s: ((one - fixed) / PACKETS as f64 - pair_s).max(0.0),
            pair_s,
        },
        upload_byte_s: ((first - one) / bytes).max(0.0),
        fingerprint: rows(|count| side.fingerprint(embeddings.slice(s![..count, ..])))?,
        embed: rows(|count| side.embed(&metric, embeddings.slice(s![..count, ..])))?,
    })
}

/// Bytes of columns as they are brought to a GPU.
pub(super) fn upload_bytes(columns: &Columns) -> u64 {
    // Slots, gain, cases, values.
    (columns.len() * (SLOTS + 4 + 2 * columns.values().ncols())) as u64
}

fn rows(run: impl Fn(usize) -> Result<Duration, GpuError>) -> Result<RowCost, GpuError> {
    let fixed_s = seconds(time(|| run(1))?.1);
    let mut count = 1 << 10;
    loop {
        let whole = seconds(time(|| run(count))?.1);
        if whole > seconds(LONG_ENOUGH) + fixed_s || count == ROWS_MAX {
            return Ok(RowCost { fixed_s, row_s: ((whole - fixed_s) / count as f64).max(0.0) });
        }
        count = (4 * count).min(ROWS_MAX);
    }
}

/// The first run, which may have to bring things there, and the shortest of some.
fn time(run: impl Fn() -> Result<Duration, GpuError>) -> Result<(Duration, Duration), GpuError> {
    let first = run()?;
    let (mut least, mut spent) = (first, first);
    for repeat in 1..REPEATS_MAX {
        if repeat > 1 && spent > REPEATS_FOR {
            break;
        }
        let one = run()?;
        least = least.min(one);
        spent += one;
    }
    Ok((first, least))
}

fn seconds(duration: Duration) -> f64 {
    duration.as_secs_f64()
}

/// Numbers of no meaning in [-40, 40], repeating after a prime number of slots.
fn slots(count: usize) -> Array2<i8> {
    const PERIOD: usize = 8_191;
    let pattern: Vec<i8> = (0..PERIOD).map(|i| ((i * i + 7 * i) % 81) as i8 - 40).collect();
    let mut flat = pattern.repeat((count * SLOTS).div_ceil(PERIOD));
    flat.truncate(count * SLOTS);
    Array2::from_shape_vec((count, SLOTS), flat).expect("whole rows")
}

fn columns() -> Columns {
    let cases = (0..PACKETS).map(|i| 1 + (i % 6) as u16).collect();
    let values = Array2::from_shape_fn((PACKETS, COLUMNS), |(row, column)| (row * 31 + column * 997) as u16);
    Columns::new(slots(PACKETS), cases, values)
}

fn table() -> Vec<u16> {
    let falling = (0..crate::limits::KERNEL_ENTRIES as u16 - 1).map(|i| WEIGHT_ONE - 4 * i);
    falling.chain([0]).collect()
}
