use super::*;
use crate::engine::{Backend, Choice};

fn engine() -> Engine {
    Engine::new(&Choice { backend: Backend::Cpu, adapter: None, threads: Some(1) }).unwrap()
}

/// Limits that are not measured: tests of the tasks need none.
const LIMITS: Limits = Limits { threads: 1, multiply_adds: 1e12, additions: 1e12, bytes_read: 1e12 };

fn small(task: Task) -> Plan {
    let addresses = (task == Task::Ragged).then_some(20);
    let time = Duration::from_millis(20);
    Plan { packets: Some(100), queries: Some(3), addresses, time, ..Plan::new(task) }
}

#[test]
fn a_record_states_its_work() {
    let engine = engine();
    let merge = measure(&engine, &LIMITS, &small(Task::Merge)).unwrap();
    assert_eq!((merge.items, merge.backend, merge.threads, merge.checked), (300, "cpu", 1, true));
    assert!(merge.seconds > 0.0 && merge.items_per_second > 0.0 && merge.items_per_cpu_second > 0.0);
    assert_eq!(merge.instructions, engine.instructions().name());
    assert_eq!((merge.packets, merge.queries, merge.value_columns), (100, Some(3), Some(8)));
    let limit = merge.limit.unwrap();
    assert_eq!((limit.value, limit.unit), (1e12 / 128.0, Clock::Processor));
    assert_eq!(merge.fraction_of_limit, Some(merge.items_per_cpu_second / limit.value));

    let ragged = measure(&engine, &LIMITS, &small(Task::Ragged)).unwrap();
    assert_eq!(ragged.addresses, Some(20));
    assert!(ragged.items > 20 * 34 && ragged.queries >= Some(3 * 20), "{ragged:?}");

    let query = measure(&engine, &LIMITS, &small(Task::Query)).unwrap();
    assert_eq!((query.items, query.queries), (100, Some(1)));

    let verify = measure(&engine, &LIMITS, &small(Task::Verify)).unwrap();
    assert_eq!((verify.items, verify.bytes, verify.limit), (100, 51_200, None));
    assert!(verify.single_items_per_cpu_second > Some(0.0));

    let ingest = measure(&engine, &LIMITS, &small(Task::Ingest)).unwrap();
    assert_eq!((ingest.items, ingest.packets), (100, 100));
    let limit = ingest.limit.unwrap();
    let slower = ingest.read_items_per_second.unwrap().min(ingest.compute_items_per_second.unwrap());
    assert_eq!((limit.value, limit.unit), (slower, Clock::Wall));

    let engine = engine.with_law();
    let fingerprint = measure(&engine, &LIMITS, &small(Task::Fingerprint)).unwrap();
    assert_eq!((fingerprint.items, fingerprint.bytes), (100, 16_000));
    let json = serde_json::to_value(&fingerprint).unwrap();
    assert_eq!(json["task"], "fingerprint");
    assert_eq!(json["instructions"], "scalar");
    assert_eq!(json["checked"], true);
    assert_eq!(json["limit"]["unit"], "per CPU second");
    assert_eq!(
        (&json["kernel_seconds"], &json["skip"]),
        (&serde_json::Value::Null, &serde_json::Value::Null)
    );
}

/// The kernel reaches one kind of packets where they are clustered, and nearly all where not.
#[test]
fn clustered_packets_are_mostly_out_of_reach() {
    let engine = engine();
    let plan = Plan { packets: Some(2_048), skip: false, ..small(Task::Merge) };
    let loose = measure(&engine, &LIMITS, &plan).unwrap();
    assert!(loose.weightless_share < Some(0.01), "{loose:?}");
    assert_eq!(loose.skip, Some(false));
    let tight = measure(&engine, &LIMITS, &Plan { clustered: true, skip: true, ..plan }).unwrap();
    // Two packets of each kind.
    assert_eq!(tight.weightless_share, Some(1.0 - 2.0 / 2_048.0));
}

/// A wrong result is found, in whichever checked row it is.
#[test]
fn a_wrong_result_is_no_figure() {
    let engine = engine();
    let Workload::Merge(merge) = Workload::new(&small(Task::Merge)).unwrap() else { panic!("a merge") };
    let mut tallies = merge.tallies(&engine);
    assert_eq!(merge.wrong_row(&engine, &tallies), None);
    let stride = tallies.stride();
    tallies.cells_mut()[2 * stride + 5] += 1;
    assert_eq!(merge.wrong_row(&engine, &tallies), Some(2));
}
