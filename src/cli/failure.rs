//! How a command ends when it does not end well. The rule is in [`super`]'s doc; the conversions
//! below are where each kind of error meets it.

use super::output;
use crate::demo::DemoError;
use crate::domain::init::InitError;
use crate::domain::{DomainError, TableError};
use crate::mailbox::{MailboxError, with_causes};
use crate::net::NetError;
use crate::packet::FileError;
use crate::run::deposit::DepositError;
use crate::run::key::KeyError;
use crate::run::node::NodeError;
use crate::run::swarm::SwarmError;
use crate::run::{AuthorError, LearnerError};
use crate::store::StoreError;
use miette::{Diagnostic, MietteDiagnostic, Report};
use std::error::Error;
use std::io::ErrorKind;
use std::process::ExitCode;

/// An error with its exit code.
#[derive(Debug)]
pub struct Failure {
    code: u8,
    report: Report,
}

impl Failure {
    /// Exit code 1: the world did not let us.
    pub fn failed(error: impl Error) -> Failure {
        Failure::said(1, with_causes(&error), None)
    }
    /// Exit code 2: flags that contradict each other or name nothing.
    pub fn usage(message: impl Into<String>) -> Failure {
        Failure::said(2, message.into(), None)
    }
    /// Exit code 3: a file or a row is not what it should be.
    pub fn rejected(error: impl Error) -> Failure {
        Failure::said(3, with_causes(&error), None)
    }
    /// Exit code 3, with the source line marked.
    pub fn diagnosed(report: impl Into<Report>) -> Failure {
        Failure { code: 3, report: report.into() }
    }

    fn said(code: u8, message: String, help: Option<String>) -> Failure {
        let mut said = MietteDiagnostic::new(message);
        said.help = help;
        Failure { code, report: Report::new(said) }
    }

    /// The message once, with the remedy.
    fn helped(code: u8, error: &(impl Diagnostic + 'static)) -> Failure {
        Failure::said(code, with_causes(error), error.help().map(|help| help.to_string()))
    }

    /// Prints the error to standard error and gives the exit code.
    pub fn report(&self) -> ExitCode {
        output::note(&format!("{:?}", self.report));
        ExitCode::from(self.code)
    }
}

/// Whether reading failed because of what was read: truncated or damaged compressed data.
fn is_content(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::InvalidData | ErrorKind::InvalidInput)
}

impl From<DomainError> for Failure {
    fn from(error: DomainError) -> Failure {
        match error {
            DomainError::Read { ref source, .. } if !is_content(source) => Failure::helped(1, &error),
            error => Failure::diagnosed(error),
        }
    }
}

impl From<TableError> for Failure {
    fn from(error: TableError) -> Failure {
        let code = match &error {
            TableError::Open { .. } => 1,
            TableError::Read { source, .. } if !is_content(source) => 1,
            _ => 3,
        };
        Failure::helped(code, &error)
    }
}

impl From<InitError> for Failure {
    fn from(error: InitError) -> Failure {
        match error {
            InitError::Table(error) => error.into(),
            InitError::NoColumn { .. } => Failure::helped(2, &error),
            error => Failure::diagnosed(error),
        }
    }
}

impl From<FileError> for Failure {
    fn from(error: FileError) -> Failure {
        match &error {
            FileError::Io { source, .. } if !is_content(source) => Failure::failed(error),
            _ => Failure::rejected(error),
        }
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Failure {
        match &error {
            StoreError::Format { .. } | StoreError::Version { .. } | StoreError::Damaged { .. } => {
                Failure::rejected(error)
            }
            _ => Failure::failed(error),
        }
    }
}

impl From<AuthorError> for Failure {
    fn from(error: AuthorError) -> Failure {
        match &error {
            AuthorError::Damaged { .. } | AuthorError::Format { .. } => Failure::rejected(error),
            _ => Failure::failed(error),
        }
    }
}

impl From<SwarmError> for Failure {
    fn from(error: SwarmError) -> Failure {
        use SwarmError as E;
        match &error {
            E::Io { .. } | E::Random(_) | E::NoSwarm { .. } | E::Lost { .. } => Failure::failed(error),
            E::Key(KeyError::Length { .. }) => Failure::rejected(error),
            E::Key(_) => Failure::failed(error),
            E::Exists { .. } | E::NotListed { .. } | E::Draft { .. } => Failure::usage(error.to_string()),
            E::KeyDamaged { .. }
            | E::KeyFormat { .. }
            | E::Stale { .. }
            | E::File { .. }
            | E::List { .. }
            | E::OtherSwarm { .. } => Failure::rejected(error),
        }
    }
}

impl From<LearnerError> for Failure {
    fn from(error: LearnerError) -> Failure {
        match error {
            LearnerError::Mailbox(MailboxError::Store(error)) => error.into(),
            error => Failure::failed(error),
        }
    }
}

impl From<DepositError> for Failure {
    fn from(error: DepositError) -> Failure {
        match error {
            DepositError::File(error) => error.into(),
            error if error.is_input() => Failure::rejected(error),
            error => Failure::failed(error),
        }
    }
}

impl From<DemoError> for Failure {
    fn from(error: DemoError) -> Failure {
        match error {
            DemoError::TooFew { .. } => Failure::rejected(error),
            DemoError::Learner(error) => error.into(),
            error => Failure::failed(error),
        }
    }
}

impl From<NodeError> for Failure {
    fn from(error: NodeError) -> Failure {
        match error {
            NodeError::Store(error) => error.into(),
            NodeError::Key(KeyError::Length { .. }) => Failure::rejected(error),
            NodeError::Net(NetError::Address(_)) => Failure::usage(error.to_string()),
            error => Failure::failed(error),
        }
    }
}
