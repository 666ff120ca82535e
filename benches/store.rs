//! Packets to disk: what replicas acknowledge per second, syncs included, and what a packet costs.

use cpu_time::ProcessTime;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use qis::limits::REPLICAS;
use qis::packet::{AuthorKey, Draft, Kind, Verified};
use qis::store::{DiskStore, PacketStore};
use std::time::Instant;

/// Packets per commit, as a full frame brings them.
const BATCH: u32 = 1_000;
/// Mailboxes that the packets of a batch go to.
const MAILBOXES: u32 = 100;
/// Packets that each of the replicas on one machine takes.
const EACH: u32 = 1 << 15;

fn packets(author: &AuthorKey, first: u32, count: u32) -> Vec<([u8; 32], Verified)> {
    (first..first + count)
        .map(|sequence| {
            let mut values = [None; 16];
            values[0] = Some((sequence as u16, 0));
            let mut reference = [0; 32];
            reference[..4].copy_from_slice(&sequence.to_le_bytes());
            let draft = Draft { sequence, reference, values, ..Draft::new(Kind::Observed, [1; 32], 1) };
            ([(sequence % MAILBOXES) as u8; 32], author.sign(&draft).expect("a sound draft"))
        })
        .collect()
}

fn deposit(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (store, _) = DiskStore::open(folder.path()).expect("a new store");
    let author = AuthorKey::from_seed([1; 32]);
    let mut first = 0;
    let mut group = criterion.benchmark_group("store");
    group.throughput(Throughput::Elements(u64::from(BATCH))).sample_size(20);
    group.bench_function("deposit 1,000 packets, synced", |bencher| {
        bencher.iter_batched(
            || {
                first += BATCH;
                packets(&author, first, BATCH)
            },
            |batch| store.deposit(0, &batch).expect("room on the disk"),
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

/// All replicas of some mailboxes on one machine, each depositing every packet in batches from its own
/// thread: one line per size of batch, with the CPU time of the whole process.
fn replicas(_: &mut Criterion) {
    let made = packets(&AuthorKey::from_seed([1; 32]), 0, EACH);
    for batch in [256, 1_024] {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let open =
            |number: usize| DiskStore::open(&folder.path().join(number.to_string())).expect("a new store").0;
        let stores: Vec<_> = (0..REPLICAS).map(open).collect();
        let (began, cpu) = (Instant::now(), ProcessTime::now());
        std::thread::scope(|scope| {
            for store in &stores {
                scope.spawn(|| {
                    for part in made.chunks(batch) {
                        store.deposit(0, part).expect("room on the disk");
                    }
                });
            }
        });
        let (wall, cpu) = (began.elapsed().as_secs_f64(), cpu.elapsed().as_secs_f64());
        for store in &stores {
            assert_eq!(store.health().packets, u64::from(EACH));
        }
        let all = f64::from(EACH) * REPLICAS as f64;
        println!(
            "{REPLICAS} replicas, {EACH} packets each in batches of {batch}, synced: {:.0} packets/s, {:.1} us of CPU per packet",
            all / wall,
            cpu * 1e6 / all
        );
    }
}

criterion_group!(benches, deposit, replicas);
criterion_main!(benches);
