use super::*;
use crate::packet::hex;

#[test]
fn the_cpu_gives_the_known_answer_whatever_the_threads() {
    for threads in [1, 2, 5] {
        let choice = Choice { backend: Backend::Cpu, adapter: None, threads: Some(threads) };
        let engine = Engine::new(&choice).unwrap();
        assert_eq!(hex(&known_answer(&engine)), KNOWN_ANSWER);
        assert_eq!(engine.ran(), Ran { backend: "cpu", adapter: String::new(), threads });
    }
}

#[test]
fn all_instructions_give_the_known_answer() {
    let choice = Choice { backend: Backend::Cpu, adapter: None, threads: Some(2) };
    for instructions in Instructions::available() {
        let engine = Engine::new(&choice).unwrap().with_instructions(instructions);
        assert_eq!(hex(&known_answer(&engine)), KNOWN_ANSWER, "{}", instructions.name());
        assert_eq!(engine.instructions(), instructions);
    }
}

#[test]
fn a_name_that_fits_no_adapter_is_refused_with_a_list() {
    for backend in [Backend::Gpu, Backend::Auto] {
        let choice = Choice { backend, adapter: Some("no such adapter".into()), threads: Some(1) };
        let error = Engine::new(&choice).err().expect("a refusal").to_string();
        assert!(error.contains("no such adapter") && error.contains("found"), "{error}");
    }
}

/// An engine on the software adapter, or a line that there is none.
fn on_gpu() -> Option<Engine> {
    let adapter = std::env::var("QIS_TEST_ADAPTER").unwrap_or_else(|_| "llvmpipe".into());
    let choice = Choice { backend: Backend::Gpu, adapter: Some(adapter), threads: Some(1) };
    match Engine::new(&choice) {
        Ok(engine) => Some(engine),
        Err(EngineError::Gpu(GpuError::NotNamed { .. } | GpuError::NoAdapter(_))) => {
            assert_ne!(std::env::var("QIS_REQUIRE_GPU").as_deref(), Ok("1"), "an adapter is required");
            eprintln!("GPU TEST SKIPPED: no adapter");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// Their merges share dispatches; when the device is lost under them, the CPU goes on for each.
#[test]
fn threads_that_ask_together_get_each_its_own() {
    let Some(engine) = on_gpu() else { return };
    let all_ask = || {
        std::thread::scope(|scope| {
            for _ in 0..6 {
                scope.spawn(|| assert_eq!(hex(&known_answer(&engine)), KNOWN_ANSWER));
            }
        });
    };
    all_ask();
    assert_eq!(engine.ran().backend, "gpu");
    engine.accelerator.get().unwrap().as_ref().unwrap().gpu.lose();
    engine.forget_ran();
    all_ask();
    assert_eq!(engine.ran().backend, "cpu");
}

/// Every way in which a GPU can fail during a job: the answer is the same, and `ran` tells.
#[test]
fn a_lost_device_leaves_the_work_to_the_cpu() {
    let Some(engine) = on_gpu() else { return };
    assert_eq!(hex(&known_answer(&engine)), KNOWN_ANSWER);
    assert_eq!(engine.ran().backend, "gpu");
    let accelerator = engine.accelerator.get().unwrap().as_ref().unwrap();
    assert!(accelerator.residency().packets > 0);
    accelerator.gpu.lose();
    engine.forget_ran();
    assert_eq!(hex(&known_answer(&engine)), KNOWN_ANSWER);
    assert_eq!(engine.ran(), Ran { backend: "cpu", adapter: String::new(), threads: 1 });
    // What fails first is not always the merge; one that does takes what was on the device with it.
    let rows = ndarray::Array2::zeros((1, crate::limits::SLOTS));
    let job = Job {
        kernel: &crate::domain::Kernel { shift: 0, table: vec![0; crate::limits::KERNEL_ENTRIES] },
        columns: &crate::merge::Columns::new(rows.clone(), vec![1], ndarray::Array2::zeros((1, 1))),
        gains: &[1],
        queries: rows.view(),
        spans: &[crate::merge::Span { queries: 0..1, packets: 0..1 }],
        skip: true,
    };
    assert!(accelerator.merge(&job).is_err());
    assert_eq!(accelerator.residency().packets, 0);
}

#[test]
fn an_adapter_that_fails_is_asked_once() {
    let choice = Choice { backend: Backend::Gpu, adapter: Some("llvmpipe".into()), threads: Some(1) };
    let Ok(engine) = Engine::new(&choice) else { return eprintln!("GPU TEST SKIPPED: no llvmpipe") };
    let accelerator = || engine.accelerator.get().and_then(Option::as_ref);
    assert!(engine.on_gpu(accelerator(), |_| Err::<(), _>(GpuError::OutOfMemory)).is_none());
    assert!(engine.on_gpu(accelerator(), |_| -> Result<(), GpuError> { panic!("asked again") }).is_none());
}
