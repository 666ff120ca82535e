//! `qis bench crossover`: what the GPU is worth here, job size by job size.

use super::{BackendName, Compute, Failure, output};
use crate::bench::crossover::{Point, crossover};
use crate::engine::Side;

/// Measures both sides and prints the curve; with `json` one object per size.
///
/// # Errors
/// `--backend cpu`; no adapter, or one that fails or computes otherwise.
pub fn run(compute: &Compute, json: bool) -> Result<(), Failure> {
    if matches!(compute.backend, BackendName::Cpu) {
        return Err(Failure::usage("crossover compares CPU and GPU: leave --backend cpu out"));
    }
    let engine = compute.engine()?;
    let mut points = vec![];
    let found = crossover(&engine, |point| {
        if json {
            output::json(point);
        } else {
            points.push(point.clone());
        }
    })
    .map_err(Failure::failed)?;
    if let Some(note) = &found.note {
        output::note(note);
    }
    if !json {
        let machine = &found.calibration.machine;
        output::line(&format!(
            "{} ({}) and {} CPU threads ({})",
            machine.adapter, machine.driver, machine.threads, machine.instructions
        ));
        let header =
            ["work", "packets", "questions", "CPU", "predicted", "GPU", "predicted", "auto takes", "faster"];
        output::table(header, points.iter().map(row));
        output::line("checked  every result equal on both sides; what auto takes is the smaller prediction");
    }
    Ok(())
}

fn row(point: &Point) -> [String; 9] {
    let side = |side| match side {
        Side::Cpu => "CPU".to_string(),
        Side::Gpu => "GPU".to_string(),
    };
    let questions = match (point.queries, point.resident) {
        (0, _) => "-".to_string(),
        (queries, false) => queries.to_string(),
        (queries, true) => format!("{queries}, packets there"),
    };
    [
        point.work.into(),
        point.packets.to_string(),
        questions,
        time(point.cpu_measured_s),
        time(point.cpu_predicted_s),
        time(point.gpu_measured_s),
        time(point.gpu_predicted_s),
        side(point.chosen),
        side(point.faster),
    ]
}

fn time(seconds: f64) -> String {
    match seconds {
        s if s < 1e-3 => format!("{:.0} us", 1e6 * s),
        s if s < 1.0 => format!("{:.2} ms", 1e3 * s),
        s => format!("{s:.2} s"),
    }
}
