//! Adapters and known answers.

use super::Check;
use crate::engine::{Backend, Choice, Engine, KNOWN_ANSWER, known_answer};
use crate::gpu::{Description, Verdict, list, verdicts};
use crate::packet::hex;

/// An adapter, and why it is taken or not.
#[derive(Clone, Debug, serde::Serialize)]
pub struct AdapterLine {
    #[serde(flatten)]
    pub description: Description,
    pub taken: bool,
    /// Empty for the one that is taken.
    pub reason: String,
}

/// Every adapter of this machine with its verdict.
pub fn adapters(name: Option<&str>) -> Vec<AdapterLine> {
    let descriptions: Vec<Description> = list().iter().map(|adapter| adapter.description().clone()).collect();
    let verdicts = verdicts(&descriptions, name);
    let line = |(description, verdict)| match verdict {
        Verdict::Taken => AdapterLine { description, taken: true, reason: String::new() },
        Verdict::Refused(reason) => AdapterLine { description, taken: false, reason },
    };
    descriptions.into_iter().zip(verdicts).map(line).collect()
}

/// Whether the CPU code computes what it should.
pub(super) fn cpu_answer() -> Check {
    let name = "known answer on the CPU";
    let choice = Choice { backend: Backend::Cpu, ..Choice::default() };
    match Engine::new(&choice) {
        Ok(engine) => compare(name, &engine, "reinstall qis: this build computes wrongly"),
        Err(error) => Check::failed(name, error.to_string(), "qis doctor with fewer processes running"),
    }
}

/// Whether the chosen adapter gives the same bits. No adapter at all is no failure: everything runs
/// on the CPU too. A named one that is missing is.
pub(super) fn gpu_answer(adapter: Option<&str>, lines: &[AdapterLine]) -> Check {
    let name = "known answer on the GPU";
    let taken = lines.iter().find(|line| line.taken);
    if taken.is_none() {
        let install = "sudo apt install mesa-vulkan-drivers (NVIDIA: its own driver)";
        let remedy = match lines.first().and_then(|line| line.description.name.split_whitespace().next()) {
            Some(first) => format!("qis doctor --adapter {first}; for a real GPU {install}"),
            None => install.into(),
        };
        return match adapter {
            Some(part) => {
                Check::failed(name, format!("none of {} adapters is named \"{part}\"", lines.len()), remedy)
            }
            None => {
                Check::noted(name, "no real adapter: everything runs on the CPU, with equal results", remedy)
            }
        };
    }
    let choice = Choice { backend: Backend::Gpu, adapter: adapter.map(str::to_owned), threads: None };
    let remedy = "update the GPU's driver, and use --backend cpu until this check passes";
    match Engine::new(&choice) {
        Ok(engine) => compare(name, &engine, remedy),
        Err(error) => Check::failed(name, error.to_string(), remedy),
    }
}

fn compare(name: &'static str, engine: &Engine, remedy: &str) -> Check {
    let wants_gpu = name.ends_with("GPU");
    let answer = hex(&known_answer(engine));
    let ran = engine.ran();
    if wants_gpu && ran.backend != "gpu" {
        return Check::failed(name, "the adapter failed during the work", remedy);
    }
    let what = if wants_gpu {
        ran.adapter
    } else {
        format!("{} threads, {}", ran.threads, engine.instructions().name())
    };
    if answer == KNOWN_ANSWER {
        Check::passed(name, format!("{what}: equal, {}", &answer[..16]))
    } else {
        Check::failed(name, format!("{what}: {answer} where {KNOWN_ANSWER} is right"), remedy)
    }
}
