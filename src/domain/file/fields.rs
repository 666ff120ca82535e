//! Typed access to one table of a domain file: what is asked for is known, the rest is reported.

use super::diagnose::{Problems, nearest};
use std::collections::BTreeSet;
use std::fmt::Display;
use std::ops::{Range, RangeInclusive};
use toml::Spanned;
use toml::de::{DeTable, DeValue};
use unicode_normalization::UnicodeNormalization;

/// One table while it is read. Every key that was asked for counts as known; [`Fields::finish`]
/// reports the others. So each key must be asked for whether or not something else is wrong.
pub(super) struct Fields<'a> {
    /// What the table is, for messages: `feature "age"`.
    pub(super) what: String,
    pub(super) span: Range<usize>,
    table: &'a DeTable<'a>,
    asked: BTreeSet<&'static str>,
}

/// A value with its place.
pub(super) struct Placed<T> {
    pub(super) value: T,
    pub(super) span: Range<usize>,
}

fn article(kind: &str) -> String {
    match kind.chars().next() {
        Some('a' | 'i') => format!("an {kind}"),
        _ => format!("a {kind}"),
    }
}

impl<'a> Fields<'a> {
    pub(super) fn new(what: impl Into<String>, span: Range<usize>, table: &'a DeTable<'a>) -> Fields<'a> {
        Fields { what: what.into(), span, table, asked: BTreeSet::new() }
    }

    /// The raw value of a key, marked as known.
    pub(super) fn raw(&mut self, key: &'static str) -> Option<&'a Spanned<DeValue<'a>>> {
        self.asked.insert(key);
        self.table.get(key)
    }

    /// Keys and values of a table whose keys are free, all of them known.
    pub(super) fn entries(
        &self,
    ) -> impl Iterator<Item = (String, Range<usize>, &'a Spanned<DeValue<'a>>)> + use<'a> {
        self.table.iter().map(|(key, value)| (key.get_ref().nfc().collect(), key.span(), value))
    }

    /// Reports the keys nobody asked for.
    pub(super) fn finish(self, problems: &mut Problems) {
        for key in self.table.keys() {
            let name: &str = key.get_ref();
            if self.asked.contains(name) {
                continue;
            }
            let help = match nearest(name, self.asked.iter().copied()) {
                Some(meant) => format!("did you mean `{meant}`?"),
                None => {
                    let known: Vec<&str> = self.asked.iter().copied().collect();
                    format!("keys of {}: {}", self.what, known.join(", "))
                }
            };
            problems.note(key.span(), format!("unknown key `{name}` in {}", self.what), "unknown", help);
        }
    }

    /// Reports that a key is absent, at the head of the table.
    pub(super) fn absent(&self, key: &str, help: impl Into<String>, problems: &mut Problems) {
        let message = format!("{} has no `{key}`", self.what);
        problems.note(self.span.clone(), message, format!("`{key}` is absent"), help.into());
    }

    fn wrong_type(
        &self,
        key: &str,
        value: &Spanned<DeValue>,
        expected: &str,
        example: &str,
        problems: &mut Problems,
    ) {
        let found = article(value.get_ref().type_str());
        problems.note(
            value.span(),
            format!("`{key}` of {} is {found}, not {}", self.what, article(expected)),
            format!("{} expected", article(expected)),
            format!("for example {key} = {example}"),
        );
    }

    /// A text in NFC.
    pub(super) fn text(&mut self, key: &'static str, problems: &mut Problems) -> Option<Placed<String>> {
        let value = self.raw(key)?;
        match value.get_ref().as_str() {
            Some(text) => Some(Placed { value: text.nfc().collect(), span: value.span() }),
            None => {
                self.wrong_type(key, value, "string", "\"text\"", problems);
                None
            }
        }
    }

    /// A list of texts in NFC, each with its place.
    pub(super) fn texts(
        &mut self,
        key: &'static str,
        problems: &mut Problems,
    ) -> Option<Placed<Vec<Placed<String>>>> {
        let value = self.raw(key)?;
        let Some(array) = value.get_ref().as_array() else {
            self.wrong_type(key, value, "array", "[\"a\", \"b\"]", problems);
            return None;
        };
        let mut texts = Vec::with_capacity(array.len());
        for item in array {
            match item.get_ref().as_str() {
                Some(text) => texts.push(Placed { value: text.nfc().collect(), span: item.span() }),
                None => self.wrong_type(key, item, "string", "[\"a\", \"b\"], each in quotes,", problems),
            }
        }
        Some(Placed { value: texts, span: value.span() })
    }

    /// A finite number.
    pub(super) fn real(&mut self, key: &'static str, problems: &mut Problems) -> Option<Placed<f64>> {
        let value = self.raw(key)?;
        self.real_of(key, value, problems)
    }

    fn real_of(&self, key: &str, value: &Spanned<DeValue>, problems: &mut Problems) -> Option<Placed<f64>> {
        let number = match value.get_ref() {
            DeValue::Integer(_) => whole(value.get_ref()).map(|x| x as f64),
            DeValue::Float(text) => text.as_str().parse::<f64>().ok(),
            _ => {
                self.wrong_type(key, value, "number", "1.5", problems);
                return None;
            }
        };
        match number {
            Some(x) if x.is_finite() => Some(Placed { value: x, span: value.span() }),
            _ => {
                let message = format!("`{key}` of {} is not finite", self.what);
                problems.note(value.span(), message, "a finite number expected", None);
                None
            }
        }
    }

    /// A list of finite numbers.
    pub(super) fn reals(
        &mut self,
        key: &'static str,
        problems: &mut Problems,
    ) -> Option<Placed<Vec<Placed<f64>>>> {
        let value = self.raw(key)?;
        let Some(array) = value.get_ref().as_array() else {
            self.wrong_type(key, value, "array", "[1, 2.5]", problems);
            return None;
        };
        let reals = array.iter().filter_map(|item| self.real_of(key, item, problems)).collect();
        Some(Placed { value: reals, span: value.span() })
    }

    /// A whole number inside `range`.
    pub(super) fn integer<T>(
        &mut self,
        key: &'static str,
        range: RangeInclusive<T>,
        problems: &mut Problems,
    ) -> Option<Placed<T>>
    where
        T: TryFrom<i128> + PartialOrd + Display + Copy,
    {
        let value = self.raw(key)?;
        self.integer_of(key, value, &range, problems)
    }

    pub(super) fn integer_of<T>(
        &self,
        key: &str,
        value: &Spanned<DeValue>,
        range: &RangeInclusive<T>,
        problems: &mut Problems,
    ) -> Option<Placed<T>>
    where
        T: TryFrom<i128> + PartialOrd + Display + Copy,
    {
        if !value.get_ref().is_integer() {
            self.wrong_type(key, value, "integer", &range.start().to_string(), problems);
            return None;
        }
        let number = whole(value.get_ref()).and_then(|x| T::try_from(x).ok());
        match number {
            Some(x) if range.contains(&x) => Some(Placed { value: x, span: value.span() }),
            _ => {
                let (low, high) = (range.start(), range.end());
                let message = format!("`{key}` of {} is out of range", self.what);
                problems.note(value.span(), message, format!("{low} to {high} expected"), None);
                None
            }
        }
    }

    /// A list of whole numbers inside `range`.
    pub(super) fn integers<T>(
        &mut self,
        key: &'static str,
        range: RangeInclusive<T>,
        problems: &mut Problems,
    ) -> Option<Placed<Vec<T>>>
    where
        T: TryFrom<i128> + PartialOrd + Display + Copy,
    {
        let value = self.raw(key)?;
        let Some(array) = value.get_ref().as_array() else {
            self.wrong_type(key, value, "array", "[1, 2]", problems);
            return None;
        };
        let items: Vec<T> = array
            .iter()
            .filter_map(|item| self.integer_of(key, item, &range, problems))
            .map(|placed| placed.value)
            .collect();
        // A list with a hole would shift its values; the hole is reported already.
        (items.len() == array.len()).then(|| Placed { value: items, span: value.span() })
    }

    /// One of several words.
    pub(super) fn choice<T: Copy>(
        &mut self,
        key: &'static str,
        choices: &[(&'static str, T)],
        problems: &mut Problems,
    ) -> Option<Placed<T>> {
        let Placed { value, span } = self.text(key, problems)?;
        if let Some(&(_, choice)) = choices.iter().find(|(word, _)| *word == value) {
            return Some(Placed { value: choice, span });
        }
        let words: Vec<&str> = choices.iter().map(|&(word, _)| word).collect();
        let help = match nearest(&value, words.iter().copied()) {
            Some(meant) => format!("did you mean \"{meant}\"?"),
            None => format!("one of {}", words.join(", ")),
        };
        let message = format!("unknown `{key}` of {}: \"{value}\"", self.what);
        problems.note(span, message, "unknown", help);
        None
    }

    /// A table inside this one.
    pub(super) fn section(
        &mut self,
        key: &'static str,
        what: impl Into<String>,
        problems: &mut Problems,
    ) -> Option<Fields<'a>> {
        let value = self.raw(key)?;
        match value.get_ref().as_table() {
            Some(table) => Some(Fields::new(what, value.span(), table)),
            None => {
                self.wrong_type(key, value, "table", "{ ... }", problems);
                None
            }
        }
    }

    /// The tables of a `[[key]]`.
    pub(super) fn sections(
        &mut self,
        key: &'static str,
        problems: &mut Problems,
    ) -> Vec<(Range<usize>, &'a DeTable<'a>)> {
        let Some(value) = self.raw(key) else { return Vec::new() };
        let Some(array) = value.get_ref().as_array() else {
            let message = format!("`{key}` is {}, not a list of tables", article(value.get_ref().type_str()));
            let help = format!("write [[{key}]] with two brackets: there may be several");
            problems.note(value.span(), message, "a list of tables expected", help);
            return Vec::new();
        };
        let mut tables = Vec::with_capacity(array.len());
        for item in array {
            match item.get_ref().as_table() {
                Some(table) => tables.push((item.span(), table)),
                None => self.wrong_type(key, item, "table", "{ ... }", problems),
            }
        }
        tables
    }
}

/// The value of a TOML integer of any radix.
pub(super) fn whole(value: &DeValue) -> Option<i128> {
    let integer = value.as_integer()?;
    i128::from_str_radix(integer.as_str(), integer.radix()).ok()
}
