//! QIS engine.
#![deny(unsafe_code)]

// Lowest rank first: a module imports only from the ranks above it in this list.
pub mod address;
pub mod bench;
pub mod cli;
pub mod demo;
pub mod doctor;
pub mod domain;
pub mod embed;
pub mod distill;
pub mod engine;
pub mod eval;
pub mod fingerprint;
pub mod gpu;
pub mod limits;
pub mod mailbox;
pub mod merge;
pub mod net;
pub mod node;
pub mod packet;
pub mod run;
pub mod store;
