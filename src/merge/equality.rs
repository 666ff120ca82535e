//! Every fast CPU path equals the law with `==`, at the borders of what they cut: groups of 16 packets,
//! blocks of 128, tiles of 5 questions and walks of 40, spans anywhere; with blocks skipped and not.

use super::cpu::{self, Job, Span};
use super::reach::{Balls, Reach};
use super::{Columns, Tallies, lanes, simd};
use crate::domain::Kernel;
use crate::embed::rows;
use crate::limits::{CASES_MAX, KERNEL_ENTRIES, SLOTS, WEIGHT_ONE};
use ndarray::{Array2, s};
use proptest::prelude::*;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

type Merge = fn(&Job) -> Tallies;
const FAST: [(&str, Merge); 2] = [("SIMD", simd::merge), ("plain Rust", lanes::merge)];

struct Case {
    kernel: Kernel,
    columns: Columns,
    gains: Vec<u16>,
    queries: Array2<i8>,
    spans: Vec<Span>,
}

/// How far packets and questions lie around how many centres, and how many cases a packet has.
#[derive(Clone, Copy, Debug)]
struct Shape {
    centres: usize,
    noise: i8,
    cases_max: u16,
}

const WIDE: Shape = Shape { centres: 1, noise: 127, cases_max: 1 };
const CLUSTERED: Shape = Shape { centres: 9, noise: 5, cases_max: 3 };

/// Steps down to 0 at `support`, with zeros in between.
fn kernel(shift: u8, support: usize) -> Kernel {
    let weight = |i: usize| if i >= support || i % 7 == 3 { 0 } else { WEIGHT_ONE - (3 * i) as u16 };
    Kernel { shift, table: (0..KERNEL_ENTRIES).map(weight).collect() }
}

impl Case {
    /// Clusters lie one behind the other, as whoever wants blocks to be skipped would sort them.
    fn new(seed: u64, packets: usize, queries: usize, columns: usize, shape: Shape) -> Case {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let reach = 127 - shape.noise;
        let centres =
            Array2::from_shape_simple_fn((shape.centres, SLOTS), || random.random_range(-reach..=reach));
        let mut around = |rows: usize| {
            Array2::from_shape_fn((rows, SLOTS), |(row, slot)| {
                let centre = centres[[row * shape.centres / rows, slot]];
                centre + random.random_range(-shape.noise..=shape.noise)
            })
        };
        let (embeddings, queries) = (around(packets), around(queries));
        let values = Array2::from_shape_simple_fn((packets, columns), || random.random());
        let cases = (0..packets).map(|_| random.random_range(1..=shape.cases_max)).collect();
        Case {
            kernel: if shape.centres > 1 { kernel(4, 500) } else { kernel(11, KERNEL_ENTRIES - 1) },
            columns: Columns::new(embeddings, cases, values),
            gains: (0..packets).map(|_| random.random_range(0..=WEIGHT_ONE)).collect(),
            spans: vec![Span { queries: 0..queries.nrows(), packets: 0..packets }],
            queries,
        }
    }

    fn job(&self, skip: bool) -> Job<'_> {
        Job {
            kernel: &self.kernel,
            columns: &self.columns,
            gains: &self.gains,
            queries: self.queries.view(),
            spans: &self.spans,
            skip,
        }
    }

    fn check(&self) {
        let law = cpu::merge(&self.job(true));
        for (name, merge) in FAST {
            for skip in [false, true] {
                assert!(merge(&self.job(skip)) == law, "{name}, skip {skip}");
            }
        }
    }

    /// Pairs that need not be read, of all, by the balls alone.
    fn excluded(&self) -> f64 {
        let Some(reach) = Reach::of(&self.kernel) else { return 0.0 };
        let balls = self.columns.balls();
        let centre = |ball: usize| balls.centres().groups()[ball / 16].row(ball % 16);
        let mut excluded = 0;
        for query in rows(&self.queries.view()) {
            for (ball, &radius) in balls.radii().iter().enumerate() {
                excluded += usize::from(reach.excludes(cpu::distance(query, &centre(ball)), radius));
            }
        }
        excluded as f64 / (balls.radii().len() * self.queries.nrows()) as f64
    }
}

#[test]
fn borders_of_groups_and_tiles() {
    for packets in [1, 11, 12, 15, 16, 17, 31, 33, 127, 128, 129, 143, 145, 256, 257, 400] {
        for queries in [1, 2, 3, 4, 5, 6, 39, 40, 41, 81] {
            Case::new(1, packets, queries, 3, WIDE).check();
        }
    }
}

#[test]
fn spans_begin_and_end_anywhere() {
    for start in [0, 1, 15, 16, 17, 111, 112, 113, 127, 128, 129] {
        let mut case = Case::new(2, 700, 7, 5, Shape { cases_max: 2, ..WIDE });
        case.spans.clear();
        for length in [1, 11, 12, 13, 16, 100, 112, 113, 127, 128, 129, 144, 500] {
            case.spans.push(Span { queries: length % 3..7, packets: start..start + length });
        }
        case.check();
    }
}

#[test]
fn every_number_of_columns() {
    for columns in 0..=80 {
        Case::new(3, 150, 3, columns, Shape { cases_max: 1 + columns as u16 % 3, ..WIDE }).check();
    }
}

/// Values at both ends, weights and cases at the largest: registers are filled to the last bit.
#[test]
fn sums_at_the_bounds() {
    for value in [0, 1, 0x7FFF, 0x8000, u16::MAX] {
        for cases in [1, 7, 8, 511, 512, CASES_MAX] {
            let mut case = Case::new(4, 400, 3, 9, WIDE);
            case.kernel = Kernel { shift: 22, table: vec![WEIGHT_ONE; KERNEL_ENTRIES] };
            case.gains.fill(WEIGHT_ONE);
            let embeddings = case.columns.embeddings().to_owned();
            case.columns = Columns::new(embeddings, vec![cases; 400], Array2::from_elem((400, 9), value));
            case.check();
            let all = 400 * u64::from(WEIGHT_ONE) * u64::from(cases);
            let row = simd::merge(&case.job(false)).tally(2);
            assert_eq!((row.weight, row.sums[8]), (all, all * u64::from(value)));
        }
    }
}

#[test]
fn one_case_and_several_in_turn() {
    let mut case = Case::new(5, 900, 6, 4, Shape { cases_max: CASES_MAX, ..WIDE });
    let cases: Vec<u16> = case.columns.cases().to_vec();
    let part = |keep: fn(usize) -> bool| {
        cases.iter().enumerate().map(|(packet, &n)| if keep(packet) { n } else { 1 }).collect::<Vec<u16>>()
    };
    for keep in [|p| p >= 450, |p| p == 449, |p| p % 17 == 3, |p| (128..256).contains(&p)] {
        let (embeddings, values) = (case.columns.embeddings().to_owned(), case.columns.values().to_owned());
        case.columns = Columns::new(embeddings, part(keep), values);
        case.check();
    }
}

#[test]
fn kernels_of_every_reach() {
    for shift in [0, 4, 10, 13, 22] {
        for support in [0, 1, 2, 500, KERNEL_ENTRIES - 1, KERNEL_ENTRIES] {
            let mut case = Case::new(6, 500, 12, 2, CLUSTERED);
            case.kernel = kernel(shift, support);
            case.check();
        }
    }
    // One packet's distance exactly at the end of the table's support, and one before it.
    let mut case = Case::new(7, 40, 1, 1, CLUSTERED);
    let farthest = rows(&case.columns.embeddings())
        .iter()
        .map(|packet| cpu::distance(&rows(&case.queries.view())[0], packet))
        .filter(|&distance| distance < 1_000)
        .max();
    for support in farthest.unwrap_or(900).saturating_sub(1)..farthest.unwrap_or(900) + 2 {
        case.kernel = kernel(0, support as usize);
        case.check();
    }
}

#[test]
fn clusters_beyond_the_reach_are_skipped() {
    let mut case = Case::new(8, 5_000, 40, 4, CLUSTERED);
    assert!(case.excluded() > 0.8, "the test skips: {}", case.excluded());
    case.check();
    let tallies = simd::merge(&case.job(true));
    assert!(tallies.row(0)[0] > 100, "and leaves something to sum");
    // Runs of authors, which are weighed together, and one question.
    case.spans = (0..5_000).step_by(37).map(|start| start..(start + 37).min(5_000)).fold(
        vec![],
        |mut all, packets| {
            all.push(Span { queries: 0..1, packets });
            all
        },
    );
    case.check();
}

#[test]
fn appended_columns_are_those_built_at_once() {
    let mut case = Case::new(9, 700, 6, 3, CLUSTERED);
    let whole = cpu::merge(&case.job(true));
    let all = case.columns.clone();
    let mut columns = Columns::empty(3);
    let mut end = 0;
    for count in [0, 1, 14, 1, 1, 16, 17, 0, 200, 255, 195] {
        let part = end..end + count;
        columns.append(
            all.embeddings().slice(s![part.clone(), ..]),
            &all.cases()[part.clone()],
            all.values().slice(s![part.clone(), ..]),
        );
        end = part.end;
        assert_eq!((columns.len(), columns.cases()), (end, &all.cases()[..end]));
        assert_eq!(columns.balls().radii().len(), end.div_ceil(16));
    }
    assert_eq!(columns.balls().radii(), all.balls().radii());
    assert_eq!(columns.planes(), all.planes());
    case.columns = columns;
    case.check();
    assert_eq!(simd::merge(&case.job(true)), whole);
}

#[test]
fn factors_beyond_their_ranges_are_the_laws() {
    let mut case = Case::new(10, 200, 3, 2, WIDE);
    case.gains[77] = WEIGHT_ONE + 1;
    case.check();
    case.gains[77] = 9;
    case.kernel.table[5] = u16::MAX;
    case.check();
}

/// Jobs that are cut for threads: pieces of packets and of questions.
#[test]
fn pieces_add_up_on_every_number_of_threads() {
    let case = Case::new(11, 20_000, 90, 2, CLUSTERED);
    for threads in [1, 2, 3] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| case.check());
    }
}

proptest! {
    #[test]
    fn any_job_is_the_laws(
        (seed, packets, queries, columns) in (any::<u64>(), 1usize..600, 1usize..40, 0usize..10),
        (centres, noise, cases_max) in (1usize..12, 1i8..60, 1..=CASES_MAX),
        (shift, support) in (0u8..13, 0..=KERNEL_ENTRIES),
        cuts in proptest::collection::vec((0usize..200, any::<bool>(), 0usize..41), 0..12),
    ) {
        let mut case = Case::new(seed, packets, queries, columns, Shape { centres, noise, cases_max });
        case.kernel = kernel(shift, support);
        let mut end = 0;
        for (length, behind, first) in cuts {
            let start = if behind { end } else { length * 7 % (packets + 1) };
            end = (start + length).min(packets);
            let first = if behind { 0 } else { first.min(queries) };
            case.spans.push(Span { queries: first..queries, packets: start..end });
        }
        case.check();
    }

    /// The proof of `reach`, tried: what is excluded has weight 0.
    #[test]
    fn excluded_balls_hold_no_weight(seed: u64, noise in 1i8..60, shift in 0u8..14, support in 0usize..1_023) {
        let case = Case::new(seed, 64, 8, 0, Shape { centres: 4, noise, cases_max: 1 });
        let kernel = kernel(shift, support);
        let Some(reach) = Reach::of(&kernel) else { return Ok(()) };
        let embeddings = case.columns.embeddings();
        let packets = rows(&embeddings);
        let mut balls = Balls::default();
        balls.append(packets, 0);
        for query in rows(&case.queries.view()) {
            for (ball, (&radius, packets)) in balls.radii().iter().zip(packets.chunks(16)).enumerate() {
                let centre = balls.centres().groups()[0].row(ball);
                if reach.excludes(cpu::distance(query, &centre), radius) {
                    prop_assert!(packets.iter().all(|packet| kernel.weight(cpu::distance(query, packet)) == 0));
                }
            }
        }
    }
}
