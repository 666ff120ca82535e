//! The tasks of `qis bench` on one core at small sizes, with criterion: `cargo bench --bench core`.
//!
//! `qis bench` measures on any backend and at full size; this one is for comparing two versions of
//! the code. `cargo test --benches` runs each once.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use qis::bench::{Plan, Task, Workload};
use qis::domain::Metric;
use qis::engine::{Backend, Choice, Engine, Instructions};
use qis::ingest::{Check, Ingest};
use qis::packet::{AuthorKey, Draft, FileError, Kind, Packet, PacketFile, PacketFileWriter, verify_batch};

/// The law, and where the processor has more, that.
fn engines() -> Vec<Engine> {
    let choice = Choice { backend: Backend::Cpu, adapter: None, threads: Some(1) };
    let engine = || Engine::new(&choice).expect("one thread");
    let best = engine();
    let mut engines = vec![engine().with_law()];
    if best.instructions() != Instructions::Scalar {
        engines.push(best);
    }
    engines
}

fn core(criterion: &mut Criterion) {
    let plan = |task, packets| Plan { packets: Some(packets), queries: Some(64), ..Plan::new(task) };
    let merge = plan(Task::Merge, 10_000);
    let plans = [
        ("fingerprint 1,000 packets", plan(Task::Fingerprint, 1_000)),
        ("merge 64 questions x 10,000 packets, every pair", Plan { skip: false, ..merge.clone() }),
        ("merge 64 questions x 10,000 packets, clustered", Plan { clustered: true, ..merge }),
        ("ragged 100 addresses of 100", Plan { addresses: Some(100), ..plan(Task::Ragged, 100) }),
        ("query 1,000 packets", plan(Task::Query, 1_000)),
        ("query 10,000 packets", plan(Task::Query, 10_000)),
    ];
    let engines = engines();
    for (name, plan) in plans {
        let workload = Workload::new(&plan).expect("inputs that are made up");
        let mut group = criterion.benchmark_group(name);
        group.throughput(Throughput::Elements(workload.items()));
        for engine in &engines {
            assert_eq!(workload.wrong_row(engine), None, "a wrong result is not measured");
            let instructions = engine.instructions().name();
            group.bench_function(instructions, |bencher| bencher.iter(|| workload.run(engine)));
        }
        group.finish();
    }
}

/// Signed packets on disk: their signatures, and the way to columns and fingerprints.
fn packets(criterion: &mut Criterion) {
    const PACKETS: usize = 2_000;
    let author = AuthorKey::from_seed([1; 32]);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("bench.qpk");
    let mut writer = PacketFileWriter::create(&path, [1; 32], [0; 32]).expect("a new file");
    let mut packets: Vec<Packet> = vec![];
    for sequence in 0..PACKETS {
        let mut draft = Draft { sequence: sequence as u32, ..Draft::new(Kind::Observed, [1; 32], 2) };
        draft.signal =
            std::array::from_fn(|slot| ((sequence * 31 + slot * 17) % 255) as u8 as i8).map(|s| s.max(-127));
        draft.values[0] = Some((sequence as u16, 0));
        let packet = author.sign(&draft).expect("a sound draft");
        writer.write(&packet).expect("room on the disk");
        packets.push(*packet.packet());
    }
    writer.finish().expect("room on the disk");

    for engine in engines() {
        let mut group = criterion.benchmark_group("ingest 2,000 packets");
        group.throughput(Throughput::Elements(PACKETS as u64));
        let ingest = Ingest { engine: &engine, metric: &Metric::Identity, outcomes: 2, check: Check::Rules };
        group.bench_function(engine.instructions().name(), |bencher| {
            bencher.iter(|| {
                let file = PacketFile::open(&path).expect("just written");
                ingest.run(file, |_| Ok::<(), FileError>(())).expect("just written")
            });
        });
        group.finish();
    }
    let mut group = criterion.benchmark_group("verify 256 packets");
    group.throughput(Throughput::Elements(256));
    group.bench_function("in batches", |bencher| bencher.iter(|| verify_batch(&packets[..256])));
    let single = || packets[..256].iter().filter(|packet| packet.verify().is_ok()).count();
    group.bench_function("one by one", |bencher| bencher.iter(single));
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20).measurement_time(std::time::Duration::from_secs(3));
    targets = core, packets
}
criterion_main!(benches);
