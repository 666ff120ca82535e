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

/// Every way in which a GPU can fail during a job: the answer is the same, and `ran` tells.
#[test]
fn a_lost_device_leaves_the_work_to_the_cpu() {
    let adapter = std::env::var("QIS_TEST_ADAPTER").unwrap_or_else(|_| "llvmpipe".into());
    let choice = Choice { backend: Backend::Gpu, adapter: Some(adapter), threads: Some(1) };
    let engine = match Engine::new(&choice) {
        Ok(engine) => engine,
        Err(EngineError::Gpu(GpuError::NotNamed { .. } | GpuError::NoAdapter(_))) => {
            assert_ne!(std::env::var("QIS_REQUIRE_GPU").as_deref(), Ok("1"), "an adapter is required");
            return eprintln!("GPU TEST SKIPPED: no adapter");
        }
        Err(error) => panic!("{error}"),
    };
    assert_eq!(hex(&known_answer(&engine)), KNOWN_ANSWER);
    assert_eq!(engine.ran().backend, "gpu");
    engine.accelerator.get().unwrap().as_ref().unwrap().gpu.lose();
    engine.forget_ran();
    assert_eq!(hex(&known_answer(&engine)), KNOWN_ANSWER);
    assert_eq!(engine.ran(), Ran { backend: "cpu", adapter: String::new(), threads: 1 });
}

#[test]
fn an_adapter_that_fails_is_asked_once() {
    let choice = Choice { backend: Backend::Gpu, adapter: Some("llvmpipe".into()), threads: Some(1) };
    let Ok(engine) = Engine::new(&choice) else { return eprintln!("GPU TEST SKIPPED: no llvmpipe") };
    assert!(engine.on_gpu(false, 1, |_| Err::<(), _>(GpuError::OutOfMemory)).is_none());
    assert!(engine.on_gpu(true, 1, |_| -> Result<(), GpuError> { panic!("asked again") }).is_none());
}
