//! What stays on the device between calls, what is done there in one run, and how it is timed: each
//! result equals the scalar law with `==`.

#[path = "support/numbers.rs"]
mod numbers;

use ndarray::Array2;
use numbers::{Ask, Numbers, open};
use qis::domain::Metric;
use qis::engine::{Accelerator, Backend, Choice, Engine, Tunings};
use qis::fingerprint::gpu::Entry;
use qis::limits::{CASES_MAX, SLOTS, WEIGHT_ONE};
use qis::merge::{Columns, Job, Span, Tuning, cpu};

fn check(gpu: &Accelerator, job: &Job) {
    assert!(gpu.merge(job).unwrap() == cpu::merge(job), "WGSL");
}

#[test]
fn packets_are_uploaded_once_and_appended_ones_behind_them() {
    let Some(gpu) = open() else { return };
    let mut numbers = Numbers(1);
    for value_columns in [0, 1, 4, 5, 8] {
        let mut columns = numbers.columns(100, value_columns);
        let before = gpu.residency().uploaded;
        let mut packets = 100;
        // Within the rounded place, past it, by one, and far past it.
        for more in [0, 0, 20, 9, 1, 300, 0, 2_000] {
            numbers.append(&mut columns, more);
            packets += more;
            let ask = Ask::new(packets as u64, packets, 3);
            check(&gpu, &ask.job(&columns));
            check(&gpu, &ask.job(&columns));
        }
        let uploaded = (gpu.residency().uploaded - before) as usize;
        // Outgrowing its place costs a packet another upload, as often as places double.
        assert!((packets..3 * packets).contains(&uploaded), "{uploaded} uploads of {packets} packets");
        // Only what was appended: a place of 2,430 rounds up to more than one.
        let before = gpu.residency().uploaded;
        check(&gpu, &Ask::new(7, packets, 2).job(&columns));
        assert_eq!(gpu.residency().uploaded, before, "nothing new, nothing sent");
    }
}

#[test]
fn other_gains_are_used_and_old_ones_come_back() {
    let Some(gpu) = open() else { return };
    let columns = Numbers(2).columns(333, 3);
    let (a, mut b) = (Ask::new(3, 333, 4), Ask::new(3, 333, 4));
    b.gains = Numbers(99).gains(333);
    for ask in [&a, &a, &b, &a, &b] {
        check(&gpu, &ask.job(&columns));
    }
    assert_eq!(gpu.residency().uploaded, 333);
    // Both in one call: the gains of one must not serve the other.
    let jobs = [a.job(&columns), b.job(&columns), a.job(&columns)];
    let tallies = gpu.merge_many(&jobs).unwrap();
    assert!(tallies.iter().zip(&jobs).all(|(tallies, job)| *tallies == cpu::merge(job)));
    // A part of the packets may still carry old gains.
    b.spans = vec![Span { queries: 1..3, packets: 330..333 }];
    check(&gpu, &b.job(&columns));
}

#[test]
fn a_copy_of_columns_is_another_mailbox() {
    let Some(gpu) = open() else { return };
    let mut numbers = Numbers(4);
    let mut one = numbers.columns(50, 2);
    check(&gpu, &Ask::new(1, 50, 2).job(&one));
    let mut other = one.clone();
    numbers.append(&mut one, 10);
    numbers.append(&mut other, 10);
    check(&gpu, &Ask::new(1, 60, 2).job(&one));
    check(&gpu, &Ask::new(1, 60, 2).job(&other));
}

/// Room for few: mailboxes are evicted, come back, and are cut where one alone is too large.
#[test]
fn mailboxes_that_do_not_fit_take_turns() {
    let Some(gpu) = open() else { return };
    // 1,024 packets on the device, windows of 512.
    gpu.limit_residency(1_024 * SLOTS as u64);
    let mut numbers = Numbers(5);
    let mut mailboxes: Vec<Columns> =
        [300, 400, 700, 64, 1, 512, 513, 2_500].map(|packets| numbers.columns(packets, 5)).into();
    for round in 0..3 {
        for columns in &mailboxes {
            check(&gpu, &Ask::new(round, columns.len(), 3).job(columns));
        }
        assert!(gpu.residency().packets <= 1_024);
        numbers.append(&mut mailboxes[3], 37);
    }
    assert!(gpu.residency().evicted > 0);
    // All at once: more than fits, in several dispatches.
    let asks: Vec<Ask> = mailboxes.iter().map(|columns| Ask::new(9, columns.len(), 2)).collect();
    let jobs: Vec<Job> = asks.iter().zip(&mailboxes).map(|(ask, columns)| ask.job(columns)).collect();
    let tallies = gpu.merge_many(&jobs).unwrap();
    assert!(tallies.iter().zip(&jobs).all(|(tallies, job)| *tallies == cpu::merge(job)));
    // The one asked last is still there.
    let last = &mailboxes[0];
    check(&gpu, &Ask::new(9, last.len(), 2).job(last));
    let before = gpu.residency().uploaded;
    check(&gpu, &Ask::new(10, last.len(), 1).job(last));
    assert_eq!(gpu.residency().uploaded, before);
}

#[test]
fn many_jobs_are_one_dispatch_for_each_kernel_and_number_of_columns() {
    let Some(gpu) = open() else { return };
    let Some(_) = gpu.take_times() else { return eprintln!("no timestamps: runs are not counted") };
    let mut numbers = Numbers(6);
    let mailboxes: Vec<Columns> = (0..40).map(|i| numbers.columns(1 + 13 * i % 170, 2 + i % 2)).collect();
    let mut asks: Vec<Ask> =
        mailboxes.iter().zip(0..).map(|(columns, i)| Ask::new(i, columns.len(), i as usize % 5)).collect();
    asks[7].kernel.shift = 3;
    let jobs: Vec<Job> = asks.iter().zip(&mailboxes).map(|(ask, columns)| ask.job(columns)).collect();
    // The first call grows the buffers.
    gpu.merge_many(&jobs).unwrap();
    gpu.take_times();
    let tallies = gpu.merge_many(&jobs).unwrap();
    assert!(tallies.iter().zip(&jobs).all(|(tallies, job)| *tallies == cpu::merge(job)));
    let times = gpu.take_times().unwrap();
    // Two and three columns, and the one of another kernel.
    assert_eq!(times.runs, 3);
    assert!(times.kernel_seconds > 0.0 && times.upload_bytes > 0 && times.download_bytes > 0);
    assert!(gpu.merge_many(&[]).unwrap().is_empty());
}

#[test]
fn every_tuning_gives_the_same_bits() {
    let Some(gpu) = open() else { return };
    let mut numbers = Numbers(8);
    for tuning in Tuning::CANDIDATES.into_iter().chain([
        Tuning { lanes: 256, rows: 64, queries_per_lane: 2, lanes_wanted: 1 << 8 },
        Tuning { lanes: 64, rows: 32, queries_per_lane: 2, lanes_wanted: 1 << 24 },
    ]) {
        assert!(gpu.tune(Tunings { fingerprint: Entry::Team, merge: tuning }));
        for (packets, queries, value_columns) in
            [(1, 1, 1), (1_000, 1, 2), (65, 2, 3), (129, 66, 4), (40, 260, 17)]
        {
            let columns = numbers.columns(packets, value_columns);
            let mut ask = Ask::new(packets as u64, packets, queries);
            check(&gpu, &ask.job(&columns));
            // One question and several in one run, spans of every size.
            ask.spans = (0..packets.min(30))
                .map(|i| Span { queries: 0..1 + i % queries.min(3), packets: i..packets.min(i + i * i + 1) })
                .collect();
            check(&gpu, &ask.job(&columns));
        }
    }
    let unsound = Tuning { lanes: 48, ..Tuning::default() };
    assert!(!gpu.tune(Tunings { merge: unsound, ..Tunings::default() }), "a file may say anything");
    let json = serde_json::to_string(&gpu.tunings()).unwrap();
    assert_eq!(serde_json::from_str::<Tunings>(&json).unwrap(), gpu.tunings());
}

/// Sums pass u32 in every tuning, in lanes with one question and with two.
#[test]
fn resident_tallies_carry_at_the_extremes() {
    let Some(gpu) = open() else { return };
    for (packets, queries, value_columns) in [(17, 1, 1), (5_000, 3, 16), (5_000, 1, 4), (1_000, 70, 5)] {
        let columns = Columns::new(
            Array2::from_elem((packets, SLOTS), 127),
            vec![CASES_MAX; packets],
            Array2::from_elem((packets, value_columns), u16::MAX),
        );
        let mut ask = Ask::new(1, packets, queries);
        ask.queries.fill(-127);
        ask.kernel.shift = 22;
        ask.kernel.table.fill(WEIGHT_ONE);
        ask.gains.fill(WEIGHT_ONE);
        for tuning in Tuning::CANDIDATES {
            gpu.tune(Tunings { fingerprint: Entry::Lane, merge: tuning });
            check(&gpu, &ask.job(&columns));
        }
        let all = packets as u64 * u64::from(WEIGHT_ONE) * u64::from(CASES_MAX);
        assert_eq!(gpu.merge(&ask.job(&columns)).unwrap().tally(0).weight, all, "the extremes are reached");
    }
}

#[test]
fn both_ways_to_fingerprint_are_equal_and_so_are_rows_on_the_device() {
    let Some(gpu) = open() else { return };
    let mut numbers = Numbers(10);
    for entry in Entry::CANDIDATES {
        gpu.tune(Tunings { fingerprint: entry, merge: Tuning::default() });
        for rows in [0, 1, 3, 4, 5, 63, 64, 65, 700] {
            let columns = numbers.columns(rows, 1);
            let mut law = vec![[0; 32]; rows];
            qis::fingerprint::cpu::fingerprint(columns.embeddings(), &mut law);
            let mut bits = vec![[0xAA; 32]; rows];
            gpu.fingerprint(columns.embeddings(), &mut bits).unwrap();
            assert_eq!(bits, law, "{entry:?}");
            bits.fill([0xAA; 32]);
            gpu.fingerprint_columns(&columns, &mut bits).unwrap();
            assert_eq!(bits, law, "{entry:?} on the device");
            let before = gpu.residency().uploaded;
            gpu.fingerprint_columns(&columns, &mut bits).unwrap();
            check(&gpu, &Ask::new(1, rows, 2).job(&columns));
            assert_eq!(gpu.residency().uploaded, before, "fingerprints and merges share what is there");
        }
    }
}

#[test]
fn embeddings_are_fingerprinted_where_they_lie() {
    let Some(gpu) = open() else { return };
    let mut numbers = Numbers(11);
    let matrix = numbers.slots(SLOTS, 127).into_raw_vec_and_offset().0;
    let metrics = [
        Metric::Identity,
        Metric::Diagonal { shift: 5, weights: matrix[..SLOTS].to_vec() },
        Metric::Full { shift: 13, matrix },
    ];
    // The last is more than one piece.
    for rows in [0, 1, 65, 131_073] {
        let signals = numbers.slots(rows, 127);
        for metric in &metrics {
            let mut embeddings = Array2::zeros((rows, SLOTS));
            qis::embed::cpu::embed(metric, signals.view(), embeddings.view_mut());
            let mut law = vec![[0; 32]; rows];
            qis::fingerprint::simd::fingerprint(embeddings.view(), &mut law);
            let mut own = Array2::from_elem((rows, SLOTS), 99);
            let mut bits = vec![[0xAA; 32]; rows];
            gpu.embed_and_fingerprint(metric, signals.view(), Some(own.view_mut()), &mut bits).unwrap();
            assert!(own == embeddings && bits == law);
            bits.fill([0xAA; 32]);
            gpu.embed_and_fingerprint(metric, signals.view(), None, &mut bits).unwrap();
            assert!(bits == law, "without a reader of the embeddings");
        }
    }
}

#[test]
fn times_are_of_the_device_and_begin_again_when_taken() {
    let name = std::env::var("QIS_TEST_ADAPTER").unwrap_or_else(|_| "llvmpipe".into());
    let choice = Choice { backend: Backend::Gpu, adapter: Some(name), threads: Some(1) };
    let Ok(engine) = Engine::new(&choice) else { return drop(open()) };
    let embeddings = Numbers(12).slots(1_000, 127);
    engine.fingerprint(embeddings.view());
    let Some(first) = engine.gpu_times() else { return eprintln!("no timestamps on this adapter") };
    assert_eq!(first.runs, 0, "runs are timed from the first call on");
    engine.fingerprint(embeddings.view());
    let times = engine.gpu_times().unwrap();
    assert_eq!((times.runs, times.download_bytes), (1, 32_000));
    assert!(times.upload_bytes >= 128_000 && times.kernel_seconds > 0.0);
    assert_eq!(engine.gpu_times().unwrap().runs, 0);
    let cpu = Engine::new(&Choice { backend: Backend::Cpu, ..Choice::default() }).unwrap();
    assert_eq!(cpu.gpu_times(), None, "no GPU, no number");
}
