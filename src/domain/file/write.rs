//! Pieces of TOML text for those who write domain files.

use crate::domain::prior::Prior;
use crate::domain::view::{Addressing, Bits, Calibration, Decay, Kernel, Metric, Options, View};

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

impl View {
    /// The `[[view]]` table of a domain file: read again, it gives this view and its id.
    pub fn to_toml(&self, signature: Option<&[u8; 64]>) -> String {
        let Addressing { tables, bits, probes } = self.addressing;
        let mut text = format!(
            "[[view]]\nname = {}\nlevel = {}\nfinish = {}\n{}",
            quoted(&self.name),
            self.level,
            self.finish,
            self.metric.to_toml()
        );
        text.push_str(&self.kernel.to_toml());
        match &self.prior {
            Prior::Mean { cases } => {
                text.push_str(&format!("prior = {{ kind = \"mean\", cases = {cases:?} }}\n"))
            }
            Prior::Scores(scores) => {
                // postcard fails only for sequences of unknown length and for full buffers; neither occurs.
                let bytes = postcard::to_stdvec(&**scores).expect("scores serialise");
                let cases = scores.cases.0;
                let fitted = hex_lines(&bytes);
                text.push_str(&format!(
                    "prior = {{ kind = \"scores\", cases = {cases:?}, fitted = \"\"\"\n{fitted}\"\"\" }}\n"
                ));
            }
        }
        text.push_str(&format!("address = {{ tables = {tables}, bits = {bits}, probes = {probes} }}\n"));
        if self.decay != Decay::none() {
            text.push_str(&self.decay.to_toml());
        }
        if let Some(signature) = signature {
            text.push_str(&format!("signature = \"{}\"\n", hex_lines(signature).replace('\n', "")));
        }
        if let Some(options) = &self.options {
            text.push_str(&options.to_toml());
        }
        text
    }
}

impl Metric {
    /// The line `metric = ...` of a view.
    pub fn to_toml(&self) -> String {
        match self {
            Metric::Identity => "metric = \"identity\"\n".into(),
            Metric::Diagonal { shift, weights } => {
                format!("metric = {{ shift = {shift}, diagonal = {} }}\n", integers(weights))
            }
            Metric::Full { shift, matrix } => {
                let bytes: Vec<u8> = matrix.iter().map(|&weight| weight as u8).collect();
                format!("metric = {{ shift = {shift}, full = \"\"\"\n{}\"\"\" }}\n", hex_lines(&bytes))
            }
        }
    }
}

impl Options {
    /// The table `[view.options]`, behind the lines of its view.
    fn to_toml(&self) -> String {
        let mut text = String::from("[view.options]\n");
        if let Some(Bits(cases)) = self.own_offset {
            text.push_str(&format!("own_offset = {cases:?}\n"));
        }
        if let Some(trust) = self.trust {
            let (spread, cases) = (trust.spread.0, trust.cases_max);
            text.push_str(&format!("trust = {{ spread = {spread:?}, cases_max = {cases} }}\n"));
        }
        for Calibration { scale, floor, lower, upper } in &self.calibration {
            let list = |ends: &[Bits]| {
                let ends: Vec<String> = ends.iter().map(|end| format!("{:?}", end.0)).collect();
                format!("[{}]", ends.join(", "))
            };
            text.push_str(&format!(
                "[[view.options.calibration]]\nscale = {:?}\nfloor = {:?}\nlower = {}\nupper = {}\n",
                scale.0,
                floor.0,
                list(lower),
                list(upper)
            ));
        }
        text
    }
}

/// Bytes as lines of 120 hex digits.
fn hex_lines(bytes: &[u8]) -> String {
    let line = |part: &[u8]| part.iter().map(|byte| format!("{byte:02x}")).collect::<String>() + "\n";
    bytes.chunks(60).map(line).collect()
}
