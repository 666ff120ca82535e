//! Tables for people, JSON for programs, notes and progress beside them.
//!
//! Nothing here panics or ends the program: a reader of standard output that has gone away is
//! remembered, so that long loops stop early and what they hold open is still put away.

use comfy_table::{ContentArrangement, Table, presets::UTF8_HORIZONTAL_ONLY};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use std::io::{ErrorKind, IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};

/// Nothing more can be written to standard output.
static CLOSED: AtomicBool = AtomicBool::new(false);
/// Standard output failed otherwise than by a reader that went away: a full disk, for example.
static FAILED: AtomicBool = AtomicBool::new(false);

/// Whether nobody reads standard output any more: the rest of the work would be for nothing.
pub fn closed() -> bool {
    CLOSED.load(Ordering::Relaxed)
}

/// Whether standard output was lost by a fault of the system, which is exit code 1.
pub fn failed() -> bool {
    FAILED.load(Ordering::Relaxed)
}

/// A table with a header; cells are aligned by the caller's formatting.
pub fn table<const N: usize>(header: [&str; N], rows: impl IntoIterator<Item = [String; N]>) {
    columns(&header, rows);
}

/// [`table`] where the number of columns is not known beforehand.
pub fn columns<R: IntoIterator<Item = String>>(header: &[&str], rows: impl IntoIterator<Item = R>) {
    let mut table = Table::new();
    table.load_style(UTF8_HORIZONTAL_ONLY).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(header.iter().copied());
    for row in rows {
        table.add_row(row);
    }
    line(&table.to_string());
}

/// One line on standard output.
pub fn line(text: &str) {
    self::text(&format!("{text}\n"));
}

/// Text with its own line ends on standard output.
pub fn text(text: &str) {
    if closed() {
        return;
    }
    let mut output = std::io::stdout().lock();
    if let Err(error) = output.write_all(text.as_bytes()).and_then(|()| output.flush()) {
        CLOSED.store(true, Ordering::Relaxed);
        if error.kind() != ErrorKind::BrokenPipe {
            FAILED.store(true, Ordering::Relaxed);
            note(&format!("standard output: {error}"));
        }
    }
}

/// One JSON value on one line of standard output.
pub fn json(value: &impl Serialize) {
    // Our own values serialise; a number that is not finite becomes null.
    line(&serde_json::to_string(value).unwrap_or_default());
}

/// One line on standard error. If it cannot be written there is nobody left to tell.
pub fn note(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// A progress bar on standard error where that is a terminal, else nothing.
pub fn progress(length: u64, what: &str) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{msg} {wide_bar} {human_pos}/{human_len} {eta}");
    let bar = ProgressBar::new(length);
    if let Ok(style) = style {
        bar.set_style(style);
    }
    bar.set_message(what.to_string());
    bar
}

/// A number with `digits` decimals, or a dash.
pub fn number(value: Option<f64>, digits: usize) -> String {
    value.map_or_else(|| "-".into(), |x| format!("{x:.digits$}"))
}

/// `1 packet`, `2 packets`: for nouns that take an s.
pub fn count(count: u64, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}
