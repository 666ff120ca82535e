//! Naive definition = scalar law = SIMD = WGSL, with `==`, at the borders of everything that is cut.
//!
//! The adapter is `QIS_TEST_ADAPTER` (default llvmpipe). Without it the GPU half is skipped with one
//! visible line; `QIS_REQUIRE_GPU=1` turns the skip into a failure.

use ndarray::{Array2, ArrayView2, ArrayViewMut2, s};
use proptest::prelude::*;
use qis::domain::{Kernel, Metric};
use qis::engine::calibration::{Calibration, Costs, Machine, RowCost, VERSION};
use qis::engine::{Accelerator, Backend, Choice, Engine, KNOWN_ANSWER, known_answer};
use qis::fingerprint::Fingerprint;
use qis::gpu::GpuError;
use qis::limits::{CASES_MAX, KERNEL_ENTRIES, SLOTS, WEIGHT_ONE};
use qis::merge::{Columns, Job, Span, Tallies};
use std::sync::OnceLock;

fn adapter_name() -> String {
    std::env::var("QIS_TEST_ADAPTER").unwrap_or_else(|_| "llvmpipe".into())
}

/// One device for all tests; `None` where there is none and that is allowed.
fn gpu() -> Option<&'static Accelerator> {
    static GPU: OnceLock<Option<Accelerator>> = OnceLock::new();
    GPU.get_or_init(|| match Accelerator::open(Some(&adapter_name())) {
        Ok(accelerator) => Some(accelerator),
        Err(error @ (GpuError::NotNamed { .. } | GpuError::NoAdapter(_)))
            if std::env::var("QIS_REQUIRE_GPU").as_deref() != Ok("1") =>
        {
            // Straight to the terminal: the test harness would swallow `eprintln!`.
            use std::io::Write;
            let _ = writeln!(std::io::stderr(), "GPU TESTS SKIPPED, only the CPU was checked: {error}");
            None
        }
        Err(error) => panic!("the GPU tests need an adapter: {error}"),
    })
    .as_ref()
}

type EmbedKernel = fn(&Metric, ArrayView2<i8>, ArrayViewMut2<i8>);
type FingerprintKernel = fn(ArrayView2<i8>, &mut [Fingerprint]);
type MergeKernel = fn(&Job) -> Tallies;

/// Embeddings on the CPU.
const EMBEDDINGS: [(&str, EmbedKernel); 3] = [
    ("scalar", qis::embed::cpu::embed),
    ("lanes", qis::embed::lanes::embed),
    ("SIMD", qis::embed::simd::embed),
];

/// Fingerprints on the CPU.
const FINGERPRINTS: [(&str, FingerprintKernel); 3] = [
    ("scalar", qis::fingerprint::cpu::fingerprint),
    ("lanes", qis::fingerprint::lanes::fingerprint),
    ("SIMD", qis::fingerprint::simd::fingerprint),
];

/// Merges on the CPU.
const MERGES: [(&str, MergeKernel); 3] = [
    ("scalar", qis::merge::cpu::merge),
    ("SIMD", qis::merge::simd::merge),
    ("plain Rust", qis::merge::lanes::merge),
];

/// A fixed sequence that repeats with no small period.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        x ^ (x >> 31)
    }
    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
    fn slots(&mut self, rows: usize, style: Style) -> Array2<i8> {
        Array2::from_shape_fn((rows, SLOTS), |_| match style {
            Style::Dense => self.below(255) as i64 as i8,
            Style::Extreme => [-127, 127][self.below(2) as usize],
            Style::Sparse => [0, 0, 0, 0, 0, 127, -127, 1][self.below(8) as usize],
            Style::Near => self.below(9) as i8 - 4,
        })
        .mapv(|slot| slot.max(-127))
    }
}

#[derive(Clone, Copy, Debug)]
enum Style {
    Dense,
    Extreme,
    Sparse,
    Near,
}

const STYLES: [Style; 4] = [Style::Dense, Style::Extreme, Style::Sparse, Style::Near];

// Straight from the design, in wide integers and the slowest way.

fn naive_embed(metric: &Metric, signals: &Array2<i8>) -> Array2<i8> {
    Array2::from_shape_fn(signals.dim(), |(n, i)| {
        let s = |j: usize| i64::from(signals[(n, j)]);
        let (sum, shift) = match metric {
            Metric::Identity => (s(i), 0),
            Metric::Diagonal { shift, weights } => (i64::from(weights[i]) * s(i), *shift),
            Metric::Full { shift, matrix } => {
                ((0..SLOTS).map(|j| i64::from(matrix[128 * i + j]) * s(j)).sum(), *shift)
            }
        };
        let r = if shift == 0 { 0 } else { 1i64 << (shift - 1) };
        ((sum + r).div_euclid(1 << shift)).clamp(-127, 127) as i8
    })
}

fn naive_fingerprint(embeddings: &Array2<i8>) -> Vec<Fingerprint> {
    let mut stream = [0u8; 128];
    blake3::Hasher::new_derive_key("qis 1 fingerprint").finalize_xof().fill(&mut stream);
    let bit = |byte: usize, i: usize| stream[byte + i / 8] >> (i % 8) & 1;
    let one = |row: usize| {
        let mut out = [0u8; 32];
        for b in 0..2 {
            let mut x: Vec<i64> = (0..128).map(|i| i64::from(embeddings[(row, i)])).collect();
            for r in 0..3 {
                let signed: Vec<i64> =
                    (0..128).map(|i| if bit(16 * (3 * b + r), i) == 1 { -x[i] } else { x[i] }).collect();
                // Sylvester: entry (j, i) is -1 to the number of common one bits of j and i.
                x = (0..128usize)
                    .map(|j| {
                        (0..128usize).map(|i| signed[i] * (1 - 2 * i64::from((i & j).count_ones() % 2))).sum()
                    })
                    .collect();
            }
            for j in 0..128 {
                let tie = bit(96 + 16 * b, j) == 1;
                if x[j] > 0 || (x[j] == 0 && tie) {
                    out[(128 * b + j) / 8] |= 1 << (j % 8);
                }
            }
        }
        out
    };
    (0..embeddings.nrows()).map(one).collect()
}

fn naive_merge(job: &Job) -> Tallies {
    let mut cells = Vec::new();
    for span in job.spans {
        for query in span.queries.clone() {
            let mut row = vec![0u128; 3 + job.columns.values().ncols()];
            for p in span.packets.clone() {
                let difference =
                    |i| i64::from(job.queries[(query, i)]) - i64::from(job.columns.embeddings()[(p, i)]);
                let d: i64 = (0..SLOTS).map(|i| difference(i) * difference(i)).sum();
                let k = u128::from(job.kernel.table[((d >> job.kernel.shift) as usize).min(1023)]);
                let w = (k * u128::from(job.gains[p]) + 2048) >> 12;
                let n = u128::from(job.columns.cases()[p]);
                row[0] += u128::from(w > 0);
                row[1] += w * n;
                row[2] += w * w * n;
                for c in 0..job.columns.values().ncols() {
                    row[3 + c] += w * n * u128::from(job.columns.values()[(p, c)]);
                }
            }
            cells.extend(row.into_iter().map(|sum| u64::try_from(sum).expect("a sum within u64")));
        }
    }
    Tallies::from_cells(job.columns.values().ncols(), cells)
}

fn check_embed(metric: &Metric, signals: &Array2<i8>) {
    let naive = naive_embed(metric, signals);
    for (name, embed) in EMBEDDINGS {
        let mut embeddings = Array2::from_elem(signals.dim(), 99);
        embed(metric, signals.view(), embeddings.view_mut());
        assert_eq!(embeddings, naive, "{name}");
    }
    if let Some(gpu) = gpu() {
        let mut wgsl = Array2::from_elem(signals.dim(), 99);
        gpu.embed(metric, signals.view(), wgsl.view_mut()).unwrap();
        assert_eq!(wgsl, naive, "WGSL");
    }
}

#[test]
fn embeddings_are_equal_for_every_metric_and_shift() {
    let mut numbers = Numbers(1);
    for shift in 0..=22 {
        let style = STYLES[shift as usize % 4];
        let signals = numbers.slots(37, STYLES[shift as usize / 4 % 4]);
        let weights = numbers.slots(1, style).into_raw_vec_and_offset().0;
        check_embed(&Metric::Diagonal { shift, weights }, &signals);
        let matrix = numbers.slots(SLOTS, style).into_raw_vec_and_offset().0;
        check_embed(&Metric::Full { shift, matrix }, &signals);
    }
    check_embed(&Metric::Identity, &numbers.slots(5, Style::Dense));
}

#[test]
fn embeddings_are_equal_around_workgroups() {
    let mut numbers = Numbers(2);
    let matrix = numbers.slots(SLOTS, Style::Dense).into_raw_vec_and_offset().0;
    for rows in [0, 1, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 15, 16, 17, 63, 64, 65, 95, 96, 97, 511, 512, 513] {
        let signals = numbers.slots(rows, Style::Dense);
        check_embed(&Metric::Full { shift: 12, matrix: matrix.clone() }, &signals);
        check_embed(&Metric::Diagonal { shift: 5, weights: matrix[..SLOTS].to_vec() }, &signals);
    }
}

/// The largest sums there are: all extremes of one sign.
#[test]
fn embeddings_are_equal_at_the_extremes() {
    for sign in [-1, 1] {
        let signals = Array2::from_elem((9, SLOTS), 127);
        for shift in [0, 1, 13, 14, 15, 21, 22] {
            check_embed(&Metric::Full { shift, matrix: vec![sign * 127; SLOTS * SLOTS] }, &signals);
            check_embed(&Metric::Diagonal { shift, weights: vec![sign * 127; SLOTS] }, &signals);
        }
    }
}

#[test]
fn fingerprints_are_equal() {
    let mut numbers = Numbers(3);
    for style in STYLES {
        for rows in [0, 1, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 255, 256, 257, 511, 512, 513]
        {
            check_fingerprint(&numbers.slots(rows, style));
        }
    }
    // Unit vectors and zero: most projections tie or are tiny; all-extreme rows reach the bounds.
    let mut units = Array2::zeros((2 * SLOTS + 3, SLOTS));
    for i in 0..SLOTS {
        units[(2 * i, i)] = 127;
        units[(2 * i + 1, i)] = -1;
    }
    units.row_mut(2 * SLOTS).fill(127);
    units.row_mut(2 * SLOTS + 1).fill(-127);
    check_fingerprint(&units);
}

fn check_fingerprint(embeddings: &Array2<i8>) {
    let naive = naive_fingerprint(embeddings);
    for (name, fingerprint) in FINGERPRINTS {
        let mut bits = vec![[0xAA; 32]; embeddings.nrows()];
        fingerprint(embeddings.view(), &mut bits);
        assert_eq!(bits, naive, "{name}");
    }
    if let Some(gpu) = gpu() {
        let mut wgsl = vec![[0xAA; 32]; embeddings.nrows()];
        gpu.fingerprint(embeddings.view(), &mut wgsl).unwrap();
        assert_eq!(wgsl, naive, "WGSL");
    }
}

/// Everything a job borrows.
struct Case {
    kernel: Kernel,
    columns: Columns,
    gains: Vec<u16>,
    queries: Array2<i8>,
    spans: Vec<Span>,
}

impl Case {
    fn new(seed: u64, packets: usize, queries: usize, columns: usize, style: Style) -> Case {
        let mut numbers = Numbers(seed);
        // A table with steps, zeros in between and an end that far packets reach.
        let mut table: Vec<u16> = (0..KERNEL_ENTRIES as u64)
            .map(|i| if i % 7 == 3 { 0 } else { WEIGHT_ONE - (4 * i) as u16 })
            .collect();
        table[KERNEL_ENTRIES - 1] = 0;
        let shift = match style {
            Style::Dense => 11,
            Style::Extreme => 12,
            Style::Sparse => 11,
            Style::Near => 2,
        };
        Case {
            kernel: Kernel { shift, table },
            columns: Columns::new(
                numbers.slots(packets, style),
                (0..packets).map(|_| 1 + numbers.below(u64::from(CASES_MAX)) as u16).collect(),
                Array2::from_shape_fn((packets, columns), |_| numbers.below(1 << 16) as u16),
            ),
            gains: (0..packets).map(|_| numbers.below(u64::from(WEIGHT_ONE) + 1) as u16).collect(),
            queries: numbers.slots(queries, style),
            spans: vec![Span { queries: 0..queries, packets: 0..packets }],
        }
    }

    /// Other cases, by packet, and other values.
    fn change(&mut self, one_cases: impl Fn(usize, &mut u16), one_value: impl Fn(&mut u16)) {
        let mut cases = self.columns.cases().to_vec();
        cases.iter_mut().enumerate().for_each(|(packet, cases)| one_cases(packet, cases));
        let mut values = self.columns.values().to_owned();
        values.iter_mut().for_each(one_value);
        self.columns = Columns::new(self.columns.embeddings().to_owned(), cases, values);
    }

    /// Every factor at its largest: sums pass u32 within a few packets.
    fn saturate(mut self) -> Case {
        self.kernel.table[..KERNEL_ENTRIES - 1].fill(WEIGHT_ONE);
        self.kernel.shift = 22;
        self.gains.fill(WEIGHT_ONE);
        self.change(|_, cases| *cases = CASES_MAX, |value| *value = u16::MAX);
        self
    }

    fn job(&self) -> Job<'_> {
        Job {
            kernel: &self.kernel,
            columns: &self.columns,
            gains: &self.gains,
            queries: self.queries.view(),
            spans: &self.spans,
            skip: true,
        }
    }

    fn check(&self) {
        let job = self.job();
        let naive = naive_merge(&job);
        for (name, merge) in MERGES {
            assert_eq!(merge(&job), naive, "{name}");
        }
        if let Some(gpu) = gpu() {
            assert_eq!(gpu.merge(&job).unwrap(), naive, "WGSL");
        }
    }
}

#[test]
fn dense_tallies_are_equal_around_workgroups() {
    for packets in [0, 1, 7, 8, 9, 11, 12, 13, 15, 16, 17, 127, 128, 129, 255, 256, 257, 1_300] {
        for queries in [0, 1, 2, 3, 4, 5, 7, 8, 9] {
            Case::new(10, packets, queries, 2, Style::Dense).check();
        }
    }
}

#[test]
fn tallies_are_equal_for_every_number_of_columns() {
    for columns in [0, 1, 2, 3, 5, 29, 32, 79, 80] {
        for style in STYLES {
            Case::new(11, 270, 9, columns, style).check();
        }
    }
}

#[test]
fn tallies_carry_at_the_extremes() {
    for packets in [1, 15, 16, 17, 256, 5_000] {
        for (queries, columns) in [(1, 1), (3, 80), (1, 0)] {
            let case = Case::new(12, packets, queries, columns, Style::Extreme).saturate();
            case.check();
            let row = naive_merge(&case.job()).tally(0);
            let all = packets as u64 * u64::from(WEIGHT_ONE) * u64::from(CASES_MAX);
            assert_eq!((row.count, row.weight), (packets as u64, all), "the test reaches the extremes");
        }
    }
}

/// Cuts at pseudo-random places: small spans share workgroups, some have no packets or no questions.
#[test]
fn ragged_tallies_are_equal() {
    let mut numbers = Numbers(13);
    for (spans, longest) in [(1, 1), (200, 5), (200, 40), (40, 300), (9, 1_500)] {
        for columns in [1, 2, 32] {
            let mut case = Case::new(14, 3_000, 60, columns, Style::Near);
            case.spans = (0..spans)
                .map(|_| {
                    let packets = numbers.below(longest + 1) as usize;
                    let start = numbers.below((3_000 - packets) as u64 + 1) as usize;
                    let queries = numbers.below(12) as usize;
                    let first = numbers.below((60 - queries) as u64 + 1) as usize;
                    Span { queries: first..first + queries, packets: start..start + packets }
                })
                .collect();
            case.check();
        }
    }
}

#[test]
fn spans_of_nothing_give_zeros() {
    let mut case = Case::new(15, 100, 4, 2, Style::Near);
    case.spans = vec![
        Span { queries: 0..0, packets: 0..100 },
        Span { queries: 1..3, packets: 50..50 },
        Span { queries: 4..4, packets: 100..100 },
    ];
    case.check();
    case.spans.clear();
    case.check();
}

/// One span per author of the same question: the parts add up to the whole, and without one author
/// is a subtraction.
#[test]
fn authors_add_up() {
    let mut case = Case::new(16, 997, 1, 10, Style::Dense);
    let mut ends: Vec<usize> = (0..=997).step_by(13).collect();
    ends.push(997);
    case.spans = ends.windows(2).map(|pair| Span { queries: 0..1, packets: pair[0]..pair[1] }).collect();
    case.spans.push(Span { queries: 0..1, packets: 0..997 });
    case.check();
    let Some(gpu) = gpu() else { return };
    let tallies = gpu.merge(&case.job()).unwrap();
    let authors = tallies.rows() - 1;
    let mut rest = tallies.tally(authors);
    (0..authors).for_each(|author| rest.subtract(&tallies.tally(author)));
    assert_eq!(rest, qis::merge::Tally::zero(10));
}

/// Runs of one author each, one behind the other, for several questions.
#[test]
fn runs_of_authors_are_equal() {
    let mut numbers = Numbers(21);
    for (queries, columns, longest) in [(1, 5, 10), (3, 4, 40), (6, 2, 300)] {
        let mut case = Case::new(22, 2_000, queries, columns, Style::Near);
        case.spans = vec![];
        let mut start = 0;
        while start < 2_000 {
            let end = (start + numbers.below(longest + 1) as usize).min(2_000);
            case.spans.push(Span { queries: 0..queries, packets: start..end });
            start = end;
        }
        case.check();
        // Other questions in between cut what lies one behind the other.
        let middle = case.spans.len() / 2;
        case.spans[middle].queries = queries - 1..queries;
        case.check();
    }
}

/// Around the digits in which vectors take the number of cases, with every other factor largest.
#[test]
fn every_number_of_cases_is_equal() {
    for cases in [1, 7, 8, 9, 63, 64, 65, 511, 512, 513, CASES_MAX] {
        let mut case = Case::new(23, 300, 4, 3, Style::Extreme).saturate();
        case.change(|packet, n| *n = if packet == 150 { 1 } else { cases }, |_| ());
        case.check();
        case.gains.iter_mut().step_by(3).for_each(|gain| *gain = 0);
        case.check();
    }
}

/// Packets of weight 0, whole blocks of them too, add nothing.
#[test]
fn packets_without_weight_are_skipped() {
    let mut case = Case::new(24, 700, 5, 4, Style::Near);
    case.gains[100..520].fill(0);
    case.check();
    case.kernel.table.fill(0);
    case.check();
    assert!(qis::merge::simd::merge(&case.job()).cells().iter().all(|&cell| cell == 0));
}

fn style() -> impl Strategy<Value = Style> {
    (0..STYLES.len()).prop_map(|index| STYLES[index])
}

proptest! {
    #[test]
    fn embeddings_equal_the_law(seed: u64, rows in 0usize..40, style in style(), shift in 0u8..=22) {
        let mut numbers = Numbers(seed);
        let signals = numbers.slots(rows, style);
        let matrix = numbers.slots(SLOTS, style).into_raw_vec_and_offset().0;
        let weights = matrix[..SLOTS].to_vec();
        for metric in [Metric::Diagonal { shift, weights }, Metric::Full { shift, matrix }, Metric::Identity] {
            let mut law = Array2::zeros(signals.dim());
            EMBEDDINGS[0].1(&metric, signals.view(), law.view_mut());
            for (_, embed) in &EMBEDDINGS[1..] {
                let mut embeddings = Array2::from_elem(signals.dim(), 99);
                embed(&metric, signals.view(), embeddings.view_mut());
                prop_assert_eq!(&embeddings, &law);
            }
        }
    }

    #[test]
    fn fingerprints_equal_the_law(seed: u64, rows in 0usize..70, style in style()) {
        let embeddings = Numbers(seed).slots(rows, style);
        let mut law = vec![[0; 32]; rows];
        FINGERPRINTS[0].1(embeddings.view(), &mut law);
        for (_, fingerprint) in &FINGERPRINTS[1..] {
            let mut bits = vec![[0xAA; 32]; rows];
            fingerprint(embeddings.view(), &mut bits);
            prop_assert_eq!(&bits, &law);
        }
    }

    #[test]
    fn simd_merges_equal_the_law(
        (seed, style) in (any::<u64>(), style()),
        (packets, queries, columns) in (0usize..400, 1usize..11, 0usize..12),
        cases_max in 1..=CASES_MAX,
        // Where each span ends behind the one before, or at a new place, and its first question.
        cuts in proptest::collection::vec((0usize..200, any::<bool>(), 0usize..11), 0..12),
    ) {
        let mut case = Case::new(seed, packets, queries, columns, style);
        case.change(|_, cases| *cases = 1 + *cases % cases_max, |_| ());
        let mut end = 0;
        for (length, behind, first) in cuts {
            let start = if behind { end } else { length * 7 % (packets + 1) };
            end = (start + length).min(packets);
            let first = if behind { 0 } else { first.min(queries) };
            case.spans.push(Span { queries: first..queries, packets: start..end });
        }
        let job = case.job();
        prop_assert_eq!(qis::merge::simd::merge(&job), qis::merge::cpu::merge(&job));
    }
}

/// More pairs than one run takes, and more packets than one window.
#[test]
fn jobs_that_are_cut_are_equal() {
    let mut case = Case::new(17, 530_001, 3, 1, Style::Near);
    case.spans = vec![
        Span { queries: 0..2, packets: 0..530_001 },
        Span { queries: 2..3, packets: 524_287..524_289 },
        Span { queries: 0..3, packets: 524_289..530_001 },
    ];
    let job = case.job();
    let law = qis::merge::cpu::merge(&job);
    assert!(qis::merge::simd::merge(&job) == law, "SIMD");
    if let Some(gpu) = gpu() {
        assert!(gpu.merge(&job).unwrap() == law, "WGSL");
        // And the device's buffers, now used, do not shine through.
        Case::new(18, 20, 2, 3, Style::Dense).check();
    }
}

#[test]
fn many_rows_are_equal() {
    let mut case = Case::new(19, 64, 2_500, 2, Style::Dense);
    case.check();
    case.spans = (0..2_500).map(|q| Span { queries: q..q + 1, packets: q % 60..q % 60 + 4 }).collect();
    case.check();
}

/// Runs from several threads do not disturb each other.
#[test]
fn concurrent_jobs_are_equal() {
    std::thread::scope(|scope| {
        for seed in 20..24 {
            scope.spawn(move || {
                for packets in [10, 300, 700] {
                    Case::new(seed, packets, 5, 4, Style::Dense).check();
                }
            });
        }
    });
}

#[test]
fn the_engine_says_what_ran() {
    let choice = |backend| Choice { backend, adapter: Some(adapter_name()), threads: Some(1) };
    let Some(gpu) = gpu() else { return };
    let engine = Engine::new(&choice(Backend::Gpu)).unwrap();
    assert_eq!(qis::packet::hex(&known_answer(&engine)), KNOWN_ANSWER);
    assert_eq!((engine.ran().backend, engine.ran().adapter.as_str()), ("gpu", gpu.name()));

    // `auto` goes by the predictions for the job at hand, and small ones need none.
    let auto = || Engine::new(&choice(Backend::Auto)).unwrap();
    assert_eq!(qis::packet::hex(&known_answer(&auto())), KNOWN_ANSWER);
    let row = |fixed_s, row_s| RowCost { fixed_s, row_s };
    let calibration = Calibration {
        version: VERSION,
        machine: Machine {
            adapter: String::new(),
            driver: String::new(),
            instructions: String::new(),
            threads: 1,
        },
        cpu: Costs { fingerprint: row(0.0, 1e-6), ..Costs::default() },
        gpu: Costs { fingerprint: row(1e-3, 1e-8), ..Costs::default() },
    };
    for (rows, side) in [(1_000, "cpu"), (2_000, "gpu")] {
        let engine = auto().with_calibration(calibration.clone());
        let embeddings = Numbers(30).slots(rows, Style::Near);
        let fingerprints = engine.fingerprint(embeddings.view());
        let expected = naive_fingerprint(&embeddings.slice(s![-3.., ..]).to_owned());
        assert_eq!(fingerprints[fingerprints.len() - 3..], expected[..]);
        assert_eq!(engine.ran().backend, side);
    }
}
