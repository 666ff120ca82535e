//! The `qis` binary: everything is in the library.

fn main() -> std::process::ExitCode {
    qis::cli::main()
}
