//! Fingerprints and merges on one core, with criterion: `cargo bench --bench core`.
//!
//! `qis bench` measures the same on any backend; this one is for comparing two versions of the code.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use qis::bench::{Plan, Task, Workload};
use qis::engine::{Backend, Choice, Engine};

fn core(criterion: &mut Criterion) {
    let choice = Choice { backend: Backend::Cpu, adapter: None, threads: Some(1) };
    let engine = Engine::new(&choice).expect("one thread");
    let plans = [
        ("fingerprint 1,000 packets", Plan { task: Task::Fingerprint, packets: 1_000, queries: 0 }),
        ("merge 1 question x 10,000 packets", Plan { task: Task::Merge, packets: 10_000, queries: 1 }),
        ("merge 64 questions x 10,000 packets", Plan { task: Task::Merge, packets: 10_000, queries: 64 }),
    ];
    for (name, plan) in plans {
        let workload = Workload::new(plan);
        assert_eq!(workload.wrong_row(&engine), None, "a wrong result is not measured");
        let mut group = criterion.benchmark_group("core");
        group.throughput(Throughput::Elements(workload.items()));
        group.bench_function(name, |bencher| bencher.iter(|| workload.run(&engine)));
        group.finish();
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20).measurement_time(std::time::Duration::from_secs(3));
    targets = core
}
criterion_main!(benches);
