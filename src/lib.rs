//! QIS engine: edge machines learn from each other's *outcomes*, without sharing raw data and without
//! a central aggregator.
//!
//! # The way of one packet
//!
//! 1. A row of a table becomes a *signal*, 128 small integers ([`domain::Schema::signal`]), and with its
//!    outcome a signed 512-byte *packet* ([`distill::Distiller::observe`], [`packet`]).
//! 2. The view's metric turns the signal into an *embedding* ([`embed`]), the embedding into a
//!    256-bit *fingerprint* ([`fingerprint`]), the fingerprint into *addresses* ([`address`]): the
//!    address is the problem itself.
//! 3. The packet is deposited at its addresses ([`mailbox::Mailbox::deposit`]), which over QUIC means the
//!    nodes closest to the address ([`node`] decides which, [`net`] talks to them) and there a disk
//!    that has synced ([`store`]).
//! 4. Whoever has the same problem pulls what is new at the address, keeps what is live
//!    ([`merge::live()`]), turns it into columns ([`merge::Batch`]; [`merge::Warm`] does both for new
//!    packets alone) and merges: exact integer sums per author ([`merge::cpu::merge`]), finished to an
//!    estimate with an interval, effective cases and a verdict ([`merge::finish`]).
//! 5. It acts, deposits the public answer as a *synthesis* that carries no evidence
//!    ([`merge::synthesis()`]), and later the outcome as a new packet: [`run::Learner`] is this loop.
//!
//! # The map
//!
//! A module imports only from those above it; a test holds this.
//!
//! | module | one line |
//! |---|---|
//! | [`limits`] | every bound, unit in the name, relations asserted at compile time |
//! | [`packet`] | the 512 bytes; the byte table is its module doc |
//! | [`gpu`] | device, buffers, dispatch; the only user of wgpu; knows no domain word |
//! | [`domain`] | schema, view, ids, tables, row -> signal |
//! | [`embed`] | signal -> embedding |
//! | [`fingerprint`] | embedding -> 256 bits |
//! | [`address`] | fingerprint -> addresses and probes |
//! | [`merge`] | columns -> tallies -> synthesis |
//! | [`distill`] | rows -> packets |
//! | [`engine`] | embed, fingerprint, merge on the chosen backend |
//! | [`store`] | packets on disk, and its twin in memory |
//! | [`ingest`] | packet files -> columns, embeddings and fingerprints, in parallel blocks |
//! | [`tune`] | choosing a view from packets |
//! | [`mailbox`] | deposit, pull, stat over a store or a swarm; admission |
//! | [`proof`] | answers that anybody can recompute; whether a synthesis is what its evidence gives |
//! | [`node`] | decides: placement, deposits, pulls; no I/O, no clock |
//! | [`net`] | does: libp2p over QUIC, wire frames |
//! | [`serve`] | status, metrics and health of a node over HTTP |
//! | [`run`] | the live loop and what running nodes need |
//! | [`job`] | batch re-synthesis: all public answers of many packets |
//! | [`eval`] | measuring quality |
//! | [`bench`](mod@bench) | measuring speed |
//! | [`doctor`] | checking a machine |
//! | [`sim`] | the swarm without sockets: under faults, what routing costs, and nodes that learn beside rivals |
//! | [`demo`] | the whole loop on one machine, measured as it happens |
//! | [`cli`] | flags, output, exit codes |
//!
//! # Invariants
//!
//! - **The same bits everywhere.** What determines an address, a stored byte or an answer's sums is
//!   integer arithmetic. `cpu` modules are the law, written to be read; each shader has a CPU function
//!   of its name and equals it with `==`; so does any order, partition and number of threads.
//!   What follows the sums is f64 in a fixed order with `libm`, equal on every machine too.
//! - **No echo.** Only observed packets enter a merge; a synthesis carries none and names what it was
//!   made from.
//! - **An honest answer.** Interval, effective cases, further cases, and a verdict that says `thin` or
//!   `conflict`.
//! - **Nothing acknowledged is lost**: a deposit is acknowledged after the sync.
//! - Bytes from disk, network or people give an error that names the field; they never panic.
//!
//! # Deliberate absences
//!
//! No aggregator, no trained model, no global clock, no floating point before the last step, no
//! home-made hash table of the network, database or TLS.
#![deny(unsafe_code)]
// Docs lead readers of the source into private rooms too: `cargo doc --document-private-items` opens them.
#![allow(rustdoc::private_intra_doc_links)]

pub mod address;
pub mod bench;
pub mod cli;
pub mod demo;
pub mod distill;
pub mod doctor;
pub mod domain;
pub mod embed;
pub mod engine;
pub mod eval;
pub mod fingerprint;
pub mod gpu;
pub mod ingest;
pub mod job;
pub mod limits;
pub mod mailbox;
pub mod merge;
pub mod net;
pub mod node;
pub mod packet;
pub mod proof;
pub mod run;
pub mod serve;
pub mod sim;
pub mod store;
pub mod tune;
