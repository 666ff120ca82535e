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
fn a_name_that_fits_no_adapter_is_refused_with_a_list() {
    for backend in [Backend::Gpu, Backend::Auto] {
        let choice = Choice { backend, adapter: Some("no such adapter".into()), threads: Some(1) };
        let error = Engine::new(&choice).err().expect("a refusal").to_string();
        assert!(error.contains("no such adapter") && error.contains("found"), "{error}");
    }
}
