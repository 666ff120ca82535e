//! The one way from live packets to answers, shared by whoever checks what others have concluded.

use crate::domain::{Schema, View};
use crate::engine::Engine;
use crate::limits::SLOTS;
use crate::merge::{Answer, Batch, Layout, Live, Question, Situations};
use ndarray::ArrayView2;

/// The public answers to some situations, given as signals, from all live packets of the mailboxes
/// that they read.
pub fn answers(
    engine: &Engine,
    schema: &Schema,
    view: &View,
    live: Vec<Live>,
    signals: &[[i8; SLOTS]],
    ask_ms: u64,
) -> Vec<Answer> {
    let batch = Batch::new(live, Layout::of(schema, view), |signals| engine.embed(&view.metric, signals));
    let signals = ArrayView2::from_shape((signals.len(), SLOTS), signals.as_flattened());
    let signals = signals.expect("whole rows of 128 slots");
    let embeddings = engine.embed(&view.metric, signals);
    let asked = Situations::public(signals, embeddings.view());
    engine.answer(Question { schema, view, batch: &batch, ask_ms }, asked)
}
