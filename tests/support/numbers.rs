//! Numbers, merge jobs and the adapter for tests of the kernels.

use ndarray::Array2;
use qis::domain::Kernel;
use qis::engine::Accelerator;
use qis::gpu::GpuError;
use qis::limits::{CASES_MAX, KERNEL_ENTRIES, SLOTS, WEIGHT_ONE};
use qis::merge::{Columns, Job, Span};

/// The adapter of the tests; `None`, after one visible line, where there is none and that is allowed.
pub fn open() -> Option<Accelerator> {
    let name = std::env::var("QIS_TEST_ADAPTER").unwrap_or_else(|_| "llvmpipe".into());
    match Accelerator::open(Some(&name)) {
        Ok(accelerator) => Some(accelerator),
        Err(error @ (GpuError::NotNamed { .. } | GpuError::NoAdapter(_)))
            if std::env::var("QIS_REQUIRE_GPU").as_deref() != Ok("1") =>
        {
            // Straight to the terminal: the test harness would swallow `eprintln!`.
            use std::io::Write;
            let _ = writeln!(std::io::stderr(), "GPU TEST SKIPPED: {error}");
            None
        }
        Err(error) => panic!("the GPU tests need an adapter: {error}"),
    }
}

/// A fixed sequence that repeats with no small period.
pub struct Numbers(pub u64);

impl Numbers {
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (x ^ (x >> 31)) % bound
    }

    /// rows x 128 in [-most, most].
    pub fn slots(&mut self, rows: usize, most: i8) -> Array2<i8> {
        let width = 2 * most as u64 + 1;
        Array2::from_shape_fn((rows, SLOTS), |_| (self.below(width) as i64 - i64::from(most)) as i8)
    }

    pub fn gains(&mut self, packets: usize) -> Vec<u16> {
        (0..packets).map(|_| self.below(u64::from(WEIGHT_ONE) + 1) as u16).collect()
    }

    pub fn columns(&mut self, packets: usize, value_columns: usize) -> Columns {
        let mut columns = Columns::empty(value_columns);
        self.append(&mut columns, packets);
        columns
    }

    pub fn append(&mut self, columns: &mut Columns, packets: usize) {
        let embeddings = self.slots(packets, 4);
        let cases: Vec<u16> = (0..packets).map(|_| 1 + self.below(u64::from(CASES_MAX)) as u16).collect();
        let shape = (packets, columns.values().ncols());
        let values = Array2::from_shape_fn(shape, |_| self.below(1 << 16) as u16);
        columns.append(embeddings.view(), &cases, values.view());
    }
}

/// A table with steps, zeros in between and an end that far packets reach.
pub fn kernel() -> Kernel {
    let entry = |i: usize| match i {
        _ if i % 7 == 3 || i == KERNEL_ENTRIES - 1 => 0,
        _ => WEIGHT_ONE - (4 * i) as u16,
    };
    Kernel { shift: 2, table: (0..KERNEL_ENTRIES).map(entry).collect() }
}

/// Everything that a job borrows besides its columns.
pub struct Ask {
    pub kernel: Kernel,
    pub gains: Vec<u16>,
    pub queries: Array2<i8>,
    pub spans: Vec<Span>,
}

impl Ask {
    /// `queries` questions to all packets.
    pub fn new(seed: u64, packets: usize, queries: usize) -> Ask {
        let mut numbers = Numbers(seed);
        Ask {
            kernel: kernel(),
            gains: numbers.gains(packets),
            queries: numbers.slots(queries, 4),
            spans: vec![Span { queries: 0..queries, packets: 0..packets }],
        }
    }

    pub fn job<'a>(&'a self, columns: &'a Columns) -> Job<'a> {
        Job {
            kernel: &self.kernel,
            columns,
            gains: &self.gains,
            queries: self.queries.view(),
            spans: &self.spans,
            skip: true,
        }
    }
}
