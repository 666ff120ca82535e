//! Tables for people, JSON for programs, progress on terminals.

use comfy_table::{ContentArrangement, Table, presets::UTF8_HORIZONTAL_ONLY};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use std::io::{IsTerminal, Write};

/// A table with a header; cells are aligned by the caller's formatting.
pub fn table<const N: usize>(header: [&str; N], rows: impl IntoIterator<Item = [String; N]>) {
    let mut table = Table::new();
    table.load_style(UTF8_HORIZONTAL_ONLY).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(header);
    for row in rows {
        table.add_row(row);
    }
    line(&table.to_string());
}

/// One line on standard output. A reader that has gone away ends the program quietly, as it does
/// other programs in a pipe.
pub fn line(text: &str) {
    if let Err(error) = writeln!(std::io::stdout().lock(), "{text}") {
        if error.kind() == std::io::ErrorKind::BrokenPipe {
            std::process::exit(0);
        }
        eprintln!("standard output: {error}");
        std::process::exit(1);
    }
}

/// One JSON value on one line of standard output.
pub fn json(value: &impl Serialize) {
    // Our own values serialise; a number that is not finite becomes null.
    line(&serde_json::to_string(value).unwrap_or_default());
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
