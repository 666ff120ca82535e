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
/// Most ends of intervals that a calibration lists.
pub const CALIBRATION_ENTRIES_MAX: usize = 256;
/// Most features of a schema, exact ones included.
pub const FEATURES_MAX: usize = 1_024;
/// Most actions of a schema: an action index is a u16, and 0xFFFF stands for none.
pub const ACTIONS_MAX: usize = 0xFFFF;
/// Most packets in one frame on the wire.
pub const FRAME_PACKETS_MAX: usize = 1_024;
/// Most packets in one segment of a shared folder or bucket.
pub const SEGMENT_PACKETS_MAX: usize = 8_192;
/// Packets, twice, that a writer of segments knows it has written: the current and the previous
/// generation.
pub const WRITTEN_IDS_MAX: usize = 1 << 16;
/// Mailboxes in which a writer of segments goes on numbering; beyond it goes on under another name.
pub const WRITTEN_MAILBOXES_MAX: usize = 1 << 16;
/// Most ranges of a mailbox in one question.
pub const RANGES_FRAME_MAX: usize = 256;
/// Most ranges asked for in one comparison of a mailbox: enough for 16 million packets.
pub const RECONCILE_RANGES_MAX: usize = 1 << 17;
/// Mailboxes that may wait to be repaired; the rest is found again in the next round.
pub const REPAIR_QUEUE_MAX: usize = 4_096;
/// Mailboxes whose digests stand in one frame.
pub const COMPARE_MAILBOXES_MAX: usize = 1_024;
/// How far an observation may lie in the future when it is admitted, in milliseconds.
pub const CLOCK_SKEW_MS_MAX: u64 = 24 * 60 * 60 * 1_000;
/// Batches of mailboxes that a node keeps warm between questions.
pub const WARM_BATCHES_MAX: usize = 1_024;
/// Bytes that these take together, about; a larger one is kept alone, until the next question.
pub const WARM_BYTES_MAX: usize = 1 << 30;
/// Largest domain file that is read, in bytes.
pub const DOMAIN_FILE_BYTES_MAX: u64 = 8 << 20;
/// Longest record of an input table, in bytes; a longer one is refused instead of filling memory.
pub const RECORD_BYTES_MAX: usize = 1 << 20;
/// Most ids that one answer about a part of a mailbox lists; a larger part is digested in 256 pieces.
pub const RANGE_IDS_MAX: usize = 256;
/// Nodes that hold a mailbox.
pub const REPLICAS: usize = 8;
/// Disks that have synced before a deposit counts as acknowledged.
pub const ACKNOWLEDGING_DISKS: usize = 3;
/// Most members a node keeps in its list: full membership, one hop.
pub const MEMBERS_MAX: usize = 1_024;
/// Most authors in the signed list of a swarm.
pub const AUTHORS_LISTED_MAX: usize = 65_536;
/// Token buckets that a node keeps of peers, of subnets and of authors, each.
pub const QUOTA_BUCKETS_MAX: usize = 65_536;
/// Peers, and authors, whose deposits and questions a node counts apart.
pub const PARTICIPANTS_MAX: usize = 4_096;
/// Most addresses that are kept of one member.
pub const MEMBER_ADDRESSES_MAX: usize = 8;
/// Longest binary multiaddress on the wire, in bytes.
pub const MULTIADDRESS_BYTES_MAX: usize = 255;
/// Longest binary peer id on the wire, in bytes.
pub const PEER_ID_BYTES_MAX: usize = 64;
/// Longest line for people in an answer on the wire, in bytes.
pub const REASON_BYTES_MAX: usize = 255;
/// Requests of one peer that a node works on at a time; more are answered "overloaded".
pub const REQUESTS_PER_PEER_MAX: usize = 16;
/// Requests of all peers that a node works on, or has waiting, at a time.
pub const REQUESTS_MAX: usize = 128;
/// Longest wait of a subscription, in milliseconds: below the time in which any request is answered.
pub const SUBSCRIPTION_WAIT_MS_MAX: u64 = 10_000;
/// Subscriptions of one peer, and of all, that wait at a time.
pub const SUBSCRIPTIONS_PER_PEER_MAX: usize = 16;
pub const SUBSCRIPTIONS_MAX: usize = 4_096;
/// Ids that a reader remembers of mailboxes between pulls, about; a mailbox beyond it is read anew.
pub const SEEN_IDS_MAX: usize = 1 << 21;
/// Open connections of a node.
pub const CONNECTIONS_MAX: u32 = 2_048;
/// Open connections that others have dialled: dialling out stays possible when they are used up.
pub const CONNECTIONS_INCOMING_MAX: u32 = 1_536;
/// Open connections with one peer: one each way while two nodes dial each other, and a spare.
pub const CONNECTIONS_PER_PEER_MAX: u32 = 3;
/// Packets that wait in memory for replicas that do not answer; beyond it hand-offs are given up.
pub const HANDOFF_PACKETS_MAX: usize = 1 << 16;
/// Scopes that one question may name.
pub const SCOPES_PER_QUESTION_MAX: usize = 16;
/// Answers in one proof file.
pub const PROOF_ANSWERS_MAX: usize = 4_096;
/// Packets in one proof file: 128 MiB.
pub const PROOF_PACKETS_MAX: usize = 1 << 18;
/// Bytes of a proof file's first line: the domain file, and the answers field by field.
pub const PROOF_HEADER_BYTES_MAX: usize = 64 << 20;
/// Actions whose chances of being the best are computed; of more, those with the best estimates.
pub const CHOICE_ACTIONS_MAX: usize = 64;
/// Packets over which the effect of an action is corrected: each is compared with each.
pub const EFFECT_PACKETS_MAX: usize = 1 << 14;
/// Checked signatures that a node remembers, twice: the current and the previous generation.
pub const REMEMBERED_SIGNATURES_MAX: usize = 1 << 16;

// w <= 2^12, n < 2^12, x < 2^16: each addend of S is below 2^40, of V below 2^36.
const _: () = assert!(TALLY_PACKETS_MAX.ilog2() + 12 + 12 + 16 <= 63);
const _: () = assert!(CASES_MAX < 1 << 12 && WEIGHT_ONE == 1 << 12);
// The squared distance of two embeddings, at most 128 * 254^2, fits i32 and its top bits the table.
const _: () = assert!(SLOTS * 254 * 254 < 1 << 23);
const _: () = assert!(PACKET_SIGNED_BYTES + 64 == PACKET_BYTES);
const _: () = assert!(ACKNOWLEDGING_DISKS <= REPLICAS);
const _: () = assert!(CONNECTIONS_INCOMING_MAX < CONNECTIONS_MAX && REQUESTS_PER_PEER_MAX < REQUESTS_MAX);
// The text of any domain file fits twice, should every character be escaped.
const _: () = assert!(2 * DOMAIN_FILE_BYTES_MAX < PROOF_HEADER_BYTES_MAX as u64);
// Every listed author has a bucket of its own.
const _: () = assert!(AUTHORS_LISTED_MAX <= QUOTA_BUCKETS_MAX);

/// Version of the formulas that turn tallies into answers; a view names the one it was made for.
pub const FINISH_VERSION: u16 = 2;
