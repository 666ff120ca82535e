//! The domain file: TOML text -> schema, views and source, with every problem named at once.
//!
//! `format = 1` stands first, so that a later version is refused by name instead of by the keys that
//! this one does not know. Which keys there are is listed in the modules that read them:
//! `[schema]`, `[[feature]]` and `[[outcome]]` in [`schema`], `[[view]]` in [`view`], `[source]` in
//! [`source`].

mod diagnose;
mod fields;
mod schema;
mod source;
mod view;
mod write;

#[cfg(test)]
mod tests;

pub use diagnose::{DomainError, Problem};
pub use schema::parse_duration;
pub use view::VIEW_PURPOSE;
pub use write::{integers, quoted};

use super::schema::Schema;
use super::source::Source;
use super::view::View;
use crate::limits::DOMAIN_FILE_BYTES_MAX;
use diagnose::Problems;
use fields::Fields;
use std::io::Read;
use std::path::Path;
use toml::de::DeTable;

/// The one version of the file format that this program reads.
pub const FORMAT: u32 = 1;

/// A domain file that has been read and checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Domain {
    /// The schema's name too.
    pub name: String,
    /// A line for people; not hashed.
    pub about: String,
    pub schema: Schema,
    /// In file order, at least one.
    pub views: Vec<View>,
    /// How tables are read; not hashed.
    pub source: Source,
    /// The file as it was read.
    pub text: String,
}

impl Domain {
    /// Reads and checks a domain file.
    ///
    /// # Errors
    /// The file cannot be read, is larger than [`DOMAIN_FILE_BYTES_MAX`], or has problems: all of
    /// them are in the error, each with its line.
    pub fn load(path: impl AsRef<Path>) -> Result<Domain, DomainError> {
        let path = path.as_ref();
        let name = path.display().to_string();
        let read = |source| DomainError::Read { file: name.clone(), source };
        let mut bytes = Vec::new();
        let file = std::fs::File::open(path).map_err(read)?;
        let length = file.metadata().map_err(read)?.len();
        // One byte more than allowed tells a file that grew, or a pipe, from one that fits.
        file.take(DOMAIN_FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(read)?;
        if bytes.len() as u64 > DOMAIN_FILE_BYTES_MAX {
            let bytes = length.max(DOMAIN_FILE_BYTES_MAX + 1);
            return Err(DomainError::TooLarge { file: name, bytes, bytes_max: DOMAIN_FILE_BYTES_MAX });
        }
        let text = String::from_utf8(bytes).map_err(|error| DomainError::NotUtf8 {
            file: name.clone(),
            byte: error.utf8_error().valid_up_to(),
        })?;
        Domain::parse(&name, &text)
    }

    /// Checks the text of a domain file; `file` is its name in messages.
    ///
    /// # Errors
    /// All problems of the text at once, each with its line.
    pub fn parse(file: &str, text: &str) -> Result<Domain, DomainError> {
        let mut problems = Problems::new(file, text);
        let (root, errors) = DeTable::parse_recoverable(text);
        for error in &errors {
            let span = error.span().unwrap_or(0..0);
            problems.note(span, format!("not TOML: {}", error.message()), "here", None);
        }
        // After a mistake of the syntax, what follows it would be reported as absent or unknown.
        if !problems.is_empty() {
            return Err(problems.into_error());
        }
        let first_line = 0..text.find('\n').unwrap_or(text.len());
        let mut fields = Fields::new("the domain file", first_line, root.get_ref());
        match fields.raw("format") {
            None => {
                fields.absent("format", format!("begin the file with format = {FORMAT}"), &mut problems);
            }
            Some(value) => {
                let version = fields::whole(value.get_ref());
                if version != Some(i128::from(FORMAT)) {
                    let message = match version {
                        Some(version) => format!("format {version} is not known to this program"),
                        None => "`format` is not a whole number".into(),
                    };
                    let help = format!("this program reads format {FORMAT}; a newer one may read this file");
                    problems.note(value.span(), message, format!("{FORMAT} expected"), help);
                    // The keys of another version mean other things: nothing more to say.
                    return Err(problems.into_error());
                }
            }
        }
        let name = fields.text("name", &mut problems);
        match &name {
            None if fields.raw("name").is_none() => {
                fields.absent("name", "a short name, for example name = \"heart\"", &mut problems);
            }
            Some(name) if name.value.trim().is_empty() => {
                problems.note(name.span.clone(), "the domain's name is empty", "a name expected", None);
            }
            _ => {}
        }
        let name = name.map_or_else(String::new, |name| name.value);
        let about = fields.text("about", &mut problems).map_or_else(String::new, |about| about.value);
        let schema = schema::read(&mut fields, &name, &mut problems);
        let views = view::read(&mut fields, &schema, &mut problems);
        let source = source::read(&mut fields, &schema, &mut problems);
        fields.finish(&mut problems);
        if !problems.is_empty() {
            return Err(problems.into_error());
        }
        debug_assert!(schema.is_sound());
        Ok(Domain { name, about, schema, views, source, text: text.into() })
    }

    /// The view of a name; the first of the file where none is given.
    pub fn view(&self, name: Option<&str>) -> Option<&View> {
        match name {
            None => self.views.first(),
            Some(name) => self.views.iter().find(|view| view.name == name),
        }
    }
}
