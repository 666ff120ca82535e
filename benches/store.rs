//! Packets to disk: what a replica acknowledges per second, syncs included.

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use qis::packet::{AuthorKey, Draft, Kind, Verified};
use qis::store::{DiskStore, PacketStore};

/// Packets per commit, as a full frame brings them.
const BATCH: u32 = 1_000;
/// Mailboxes that the packets of a batch go to.
const MAILBOXES: u32 = 100;

fn packets(author: &AuthorKey, first: u32) -> Vec<([u8; 32], Verified)> {
    (first..first + BATCH)
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
                packets(&author, first)
            },
            |batch| store.deposit(0, &batch).expect("room on the disk"),
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

criterion_group!(benches, deposit);
criterion_main!(benches);
