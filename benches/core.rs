//! Fingerprints and merges on one core, with criterion: `cargo bench --bench core`.
//!
//! `qis bench` measures the same on any backend; this one is for comparing two versions of the code.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use qis::bench::{Plan, Task, Workload};
use qis::engine::{Backend, Choice, Engine, Instructions};

fn core(criterion: &mut Criterion) {
    let choice = Choice { backend: Backend::Cpu, adapter: None, threads: Some(1) };
    let engine = || Engine::new(&choice).expect("one thread");
    let best = engine();
    let mut engines = vec![engine().with_law()];
    if best.instructions() != Instructions::Scalar {
        engines.push(best);
    }
    let plans = [
        ("fingerprint 1,000 packets", Plan { task: Task::Fingerprint, packets: 1_000, queries: 0 }),
        ("merge 1 question x 10,000 packets", Plan { task: Task::Merge, packets: 10_000, queries: 1 }),
        ("merge 64 questions x 10,000 packets", Plan { task: Task::Merge, packets: 10_000, queries: 64 }),
    ];
    for (name, plan) in plans {
        let workload = Workload::new(plan);
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

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20).measurement_time(std::time::Duration::from_secs(3));
    targets = core
}
criterion_main!(benches);
