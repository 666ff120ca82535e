//! Pieces of TOML text for those who write domain files.

use crate::domain::view::{Decay, Kernel};

/// A text as a TOML string in double quotes.
pub fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            '\r' => quoted.push_str("\\r"),
            c if c.is_control() => quoted.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

/// Integers as the lines of a TOML array, at most about 100 characters each, indented by two.
pub fn integers<T: std::fmt::Display>(values: &[T]) -> String {
    let mut text = String::from("[");
    let mut width = usize::MAX;
    for value in values {
        let value = value.to_string();
        if width.saturating_add(value.len() + 2) > 100 {
            text.push_str("\n  ");
            width = 2;
        } else {
            text.push(' ');
            width += 1;
        }
        width += value.len() + 1;
        text.push_str(&value);
        text.push(',');
    }
    text.push_str(if values.is_empty() { "]" } else { "\n]" });
    text
}

impl Kernel {
    /// The line `kernel = { ... }` of a view; the zeros at the table's end are left out.
    pub fn to_toml(&self) -> String {
        let used = self.table.iter().rposition(|&weight| weight > 0).map_or(1, |last| last + 1);
        format!("kernel = {{ shift = {}, table = {} }}\n", self.shift, integers(&self.table[..used]))
    }
}

impl Decay {
    /// The line `decay = { ... }` of a view.
    pub fn to_toml(&self) -> String {
        format!("decay = {{ half_life = {}, table = {} }}\n", self.half_life_ms, integers(&self.table))
    }
}
