//! Every bound of the engine, with its unit in the name, and the relations between them.
//!
//! The relations are asserted at compile time, so a change that breaks one does not build.

/// Bytes of a packet.
pub const PACKET_BYTES: usize = 512;
/// Bytes of a packet that are hashed and signed: everything before the signature.
pub const PACKET_SIGNED_BYTES: usize = 448;
/// Slots of a signal and of an embedding.
pub const SLOTS: usize = 128;
/// Bits of a fingerprint.
pub const FINGERPRINT_BITS: usize = 256;
/// Bytes of a fingerprint.
pub const FINGERPRINT_BYTES: usize = FINGERPRINT_BITS / 8;
/// Most outcomes of a packet.
pub const OUTCOMES_MAX: usize = 16;
/// Most cases that one packet may summarise.
pub const CASES_MAX: u16 = 4_095;
/// Entries of a kernel table.
pub const KERNEL_ENTRIES: usize = 1_024;
/// Largest shift of a kernel or of a metric.
pub const SHIFT_MAX: u8 = 22;
/// The weight that stands for one: kernel, freshness, trust and weights are 0..=4,096.
pub const WEIGHT_ONE: u16 = 4_096;
/// Most packets that enter one tally; up to here every sum stays below 2^63.
pub const TALLY_PACKETS_MAX: u64 = 1 << 23;
/// Value columns per outcome that a merge can carry: y, z, b, v, zr.
pub const COLUMNS_PER_OUTCOME_MAX: usize = 5;
/// Most tables of an address.
pub const TABLES_MAX: u16 = 256;
/// Largest number of probes a view may ask for, per table.
pub const PROBES_MAX: u16 = 4_096;
/// Most entries of a freshness table.
pub const DECAY_ENTRIES_MAX: usize = 4_096;
/// Most features of a schema, exact ones included.
pub const FEATURES_MAX: usize = 1_024;
/// Most actions of a schema: an action index is a u16, and 0xFFFF stands for none.
pub const ACTIONS_MAX: usize = 0xFFFF;
/// Most packets in one frame on the wire.
pub const FRAME_PACKETS_MAX: usize = 1_024;
/// How far an observation may lie in the future when it is admitted, in milliseconds.
pub const CLOCK_SKEW_MS_MAX: u64 = 24 * 60 * 60 * 1_000;
/// Largest domain file that is read, in bytes.
pub const DOMAIN_FILE_BYTES_MAX: u64 = 8 << 20;
/// Longest record of an input table, in bytes; a longer one is refused instead of filling memory.
pub const RECORD_BYTES_MAX: usize = 1 << 20;
/// Nodes that hold a mailbox.
pub const REPLICAS: usize = 8;
/// Disks that have synced before a deposit counts as acknowledged.
pub const ACKNOWLEDGING_DISKS: usize = 3;

// w <= 2^12, n < 2^12, x < 2^16: each addend of S is below 2^40, of V below 2^36.
const _: () = assert!(TALLY_PACKETS_MAX.ilog2() + 12 + 12 + 16 <= 63);
const _: () = assert!(CASES_MAX < 1 << 12 && WEIGHT_ONE == 1 << 12);
// The squared distance of two embeddings, at most 128 * 254^2, fits i32 and its top bits the table.
const _: () = assert!(SLOTS * 254 * 254 < 1 << 23);
const _: () = assert!(PACKET_SIGNED_BYTES + 64 == PACKET_BYTES);
const _: () = assert!(ACKNOWLEDGING_DISKS <= REPLICAS);

/// Version of the formulas that turn tallies into answers; a view names the one it was made for.
pub const FINISH_VERSION: u16 = 1;
