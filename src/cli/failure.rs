//! How a command ends when it does not end well.

use std::process::ExitCode;

/// An error with its exit code.
#[derive(Debug)]
pub struct Failure {
    code: u8,
    report: miette::Report,
}

impl Failure {
    /// Exit code 1: the world did not let us.
    pub fn failed(error: impl std::error::Error + Send + Sync + 'static) -> Failure {
        Failure { code: 1, report: miette::Report::from_err(error) }
    }
    /// Exit code 2: flags that contradict each other or name nothing.
    pub fn usage(message: impl Into<String>) -> Failure {
        Failure { code: 2, report: miette::miette!("{}", message.into()) }
    }
    /// Exit code 3: a file or a row is not what it should be.
    pub fn rejected(error: impl std::error::Error + Send + Sync + 'static) -> Failure {
        Failure { code: 3, report: miette::Report::from_err(error) }
    }
    /// Exit code 3, with the source line marked.
    pub fn diagnosed(report: impl Into<miette::Report>) -> Failure {
        Failure { code: 3, report: report.into() }
    }

    /// Prints the error to standard error and gives the exit code.
    pub fn report(&self) -> ExitCode {
        eprintln!("{:?}", self.report);
        ExitCode::from(self.code)
    }
}
