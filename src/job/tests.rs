use super::input::Input;
use super::output::{Output, write};
use super::refresh::Refresh;
use crate::domain::Domain;
use crate::engine::{Backend, Choice, Engine};
use crate::packet::{AuthorKey, Draft, Id, Kind, PacketFileWriter, Verified};
use std::path::Path;
use std::sync::Arc;

fn domain() -> Domain {
    let text = r#"
format = 1
name = "pumps"
[schema]
actions = ["run", "stop"]
[[feature]]
name = "load"
kind = "numeric"
centre = 0
scale = 1
[[feature]]
name = "model"
kind = "categorical"
levels = ["a", "b"]
exact = true
[[outcome]]
name = "fails"
kind = "binary"
direction = "lower"
"#;
    Domain::parse("pumps.toml", text).expect("a sound domain")
}
