//! What is wrong with a domain file, each problem with its line.

use miette::{Diagnostic, LabeledSpan, NamedSource, Severity, SourceCode, SourceSpan};
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// Why a domain cannot be had.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum DomainError {
    /// The file is not there or may not be read.
    #[error("{file}: cannot be read: {source}")]
    #[diagnostic(help("`qis domain init TABLE --outcome COLUMN` drafts a domain file from a table"))]
    Read {
        file: String,
        #[source]
        source: std::io::Error,
    },
    /// The file is larger than [`crate::limits::DOMAIN_FILE_BYTES_MAX`].
    #[error("{file}: {bytes} bytes; a domain file has at most {bytes_max}")]
    #[diagnostic(help("is this a table? A domain file is the TOML text that describes one"))]
    TooLarge { file: String, bytes: u64, bytes_max: u64 },
    /// The bytes are no UTF-8 text.
    #[error("{file}: byte {byte} is not UTF-8")]
    #[diagnostic(help("save the file as UTF-8 text"))]
    NotUtf8 { file: String, byte: usize },
    /// The text is read, and wrong in these places; all that were found at once.
    #[error("{file}: {}", count(.problems.len()))]
    Invalid {
        file: String,
        #[related]
        problems: Vec<Problem>,
    },
}

fn count(problems: usize) -> String {
    match problems {
        1 => "1 problem".into(),
        n => format!("{n} problems"),
    }
}

impl DomainError {
    /// The problems of a file that could be read; empty for the other errors.
    pub fn problems(&self) -> &[Problem] {
        match self {
            DomainError::Invalid { problems, .. } => problems,
            _ => &[],
        }
    }
}

/// One problem of a domain file: its place, what is wrong there, and the remedy.
#[derive(Debug)]
pub struct Problem {
    /// 1-based.
    pub line: usize,
    /// 1-based, in characters.
    pub column: usize,
    pub message: String,
    /// Stands under the marked place.
    pub label: String,
    pub help: Option<String>,
    span: SourceSpan,
    source: NamedSource<Arc<String>>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.message)
    }
}

impl std::error::Error for Problem {}

impl Diagnostic for Problem {
    fn severity(&self) -> Option<Severity> {
        Some(Severity::Error)
    }
    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.help.as_ref().map(|help| Box::new(help) as Box<dyn fmt::Display>)
    }
    fn source_code(&self) -> Option<&dyn SourceCode> {
        Some(&self.source)
    }
    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let label = LabeledSpan::new_with_span(Some(self.label.clone()), self.span);
        Some(Box::new(std::iter::once(label)))
    }
}

/// Collects the problems of one text.
pub(super) struct Problems {
    file: String,
    text: Arc<String>,
    found: Vec<Problem>,
}

impl Problems {
    pub(super) fn new(file: &str, text: &str) -> Problems {
        Problems { file: file.into(), text: Arc::new(text.into()), found: Vec::new() }
    }

    /// Notes a problem at a byte range of the text. An empty `label` repeats no words.
    pub(super) fn note(
        &mut self,
        span: Range<usize>,
        message: impl Into<String>,
        label: impl Into<String>,
        help: impl Into<Option<String>>,
    ) {
        let start = span.start.min(self.text.len());
        let end = span.end.clamp(start, self.text.len());
        // A long value is marked on its first line only.
        let end = self.text[start..end].find(['\n', '\r']).map_or(end, |length| start + length);
        let before = &self.text[..start];
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        self.found.push(Problem {
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
            message: message.into(),
            label: label.into(),
            help: help.into(),
            span: (start, end - start).into(),
            source: NamedSource::new(&self.file, self.text.clone()).with_language("TOML"),
        });
    }

    pub(super) fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// The error that carries all problems in the order of the file.
    pub(super) fn into_error(mut self) -> DomainError {
        self.found.sort_by_key(|problem| (problem.line, problem.column));
        DomainError::Invalid { file: self.file, problems: self.found }
    }
}

/// The name of `known` that was probably meant by `word`.
pub(super) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let allowed = 1 + word.chars().count() / 4;
    known
        .into_iter()
        .map(|name| (edits(&word.to_lowercase(), &name.to_lowercase()), name))
        .filter(|&(distance, _)| distance <= allowed)
        .min()
        .map(|(_, name)| name)
}

/// Levenshtein distance in characters.
fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, &y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}
