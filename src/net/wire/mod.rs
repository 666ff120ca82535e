//! Frames of `/qis/mailbox/1`. One stream carries one request and one response, each a frame:
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 1 | version, 1 |
//! | 1 | 1 | kind |
//! | 2 | 2 | zero |
//! | 4 | 4 | bytes of the body, little-endian |
//!
//! | kind | request | body |
//! |---|---|---|
//! | 1 | hello | role u8 (0 client, 1 keeps mailboxes), epochs, own addresses |
//! | 2 | deposit | n x (address 32, packet 512), 1..=1,024 |
//! | 3 | pull | address 32, most packets u32, wait u32 ms, has cursor u8, cursor 48 |
//! | 4 | stat | address 32 |
//! | 5 | range | address 32, count u16, count x (length u8, first bytes of packet ids) |
//! | 6 | fetch | address 32, n x packet id 32, 1..=1,024 |
//! | 7 | compare | has address u8, address 32: digests of the mailboxes after it that both should hold |
//! | 8 | lists | epochs: the lists that are newer |
//! | 9 | offer | a signed list |
//!
//! | kind | response | body |
//! |---|---|---|
//! | 129 | members | role u8, epochs, own addresses, contacts |
//! | 130 | deposited | receipt (time u64, signature 64), n u16, n x u8 (0 stored, 1 duplicate, 2 rejected), per rejected one length u8 and reason |
//! | 131 | page | cursor 48, more u8, n x packet 512 |
//! | 132 | stat | packets, observed, syntheses, retractions, u64 each, digest 40, cursor 48 |
//! | 133 | ranges | count u16, each 0 u8, n u16, n x packet id 32, or 1 u8, 256 x digest 40 |
//! | 134 | packets | n x packet 512 |
//! | 135 | digests | has next u8, next address 32, n x (address 32, digest 40) |
//! | 136 | lists | count u8, count x (length u32, signed list) |
//! | 137 | noted | 1 u8 where the offered list is newer than what was known, else 0 |
//! | 192 | error | code u8, retry after u32 ms, length u8 and line for people, contacts of closer nodes |
//!
//! A pull with a wait is a subscription: it is answered when there is something after the cursor, or
//! when the wait is over. Epochs: u64 of the list of nodes, u64 of the list of authors, 0 where there is
//! none. Addresses: count u8, count x (length u8, binary multiaddress). Contacts: count u16, count x (length u8,
//! peer id, addresses). Cursor: replica 32, epoch u64, sequence u64. Digest: count u64, sum 32. Every count
//! and length is checked against `limits` before memory is taken for it. [`super::receipt`] says what a receipt
//! signs.

mod fields;
mod request;
mod response;
#[cfg(test)]
mod tests;

use crate::address::Address;
use crate::limits::{
    AUTHORS_LISTED_MAX, COMPARE_MAILBOXES_MAX, FRAME_PACKETS_MAX, MEMBER_ADDRESSES_MAX, MEMBERS_MAX,
    MULTIADDRESS_BYTES_MAX, PACKET_BYTES, PEER_ID_BYTES_MAX, RANGE_IDS_MAX, RANGES_FRAME_MAX,
    REASON_BYTES_MAX,
};
use crate::node::Contact;
use crate::node::deposit::Answer;
use crate::packet::Id;
use crate::store::{Cursor, Digest, Range, Stat};

/// Bytes before the body.
pub const HEADER_BYTES: usize = 8;
/// Bytes of one packet in a deposit: its address and itself.
pub const DEPOSIT_BYTES: usize = 32 + PACKET_BYTES;
const VERSION: u8 = 1;
const CURSOR_BYTES: usize = 48;
const DIGEST_BYTES: usize = 40;
const ADDRESSES_BYTES_MAX: usize = 1 + MEMBER_ADDRESSES_MAX * (1 + MULTIADDRESS_BYTES_MAX);
const CONTACTS_BYTES_MAX: usize = 2 + MEMBERS_MAX * (1 + PEER_ID_BYTES_MAX + ADDRESSES_BYTES_MAX);
const PAGE_HEAD_BYTES: usize = CURSOR_BYTES + 1;
const EPOCHS_BYTES: usize = 16;
/// One entry of a list is a key and two times; head and signature are far below a kilobyte.
const LIST_BYTES_MAX: usize =
    1_024 + larger(MEMBERS_MAX * (PEER_ID_BYTES_MAX + 18), AUTHORS_LISTED_MAX * (32 + 18));
const RANGE_BYTES_MAX: usize = 1 + 256 * DIGEST_BYTES;

const _: () = assert!(REASON_BYTES_MAX <= 255 && MULTIADDRESS_BYTES_MAX <= 255 && PEER_ID_BYTES_MAX <= 255);
const _: () = assert!(RANGE_IDS_MAX * 32 + 3 <= RANGE_BYTES_MAX);

const fn larger(a: usize, b: usize) -> usize {
    if a > b { a } else { b }
}

/// Of the lists that a node has: of nodes, of authors; 0 where it has none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Epochs {
    pub nodes: u64,
    pub authors: u64,
}

/// What a node says of itself in a greeting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Introduction {
    /// It keeps mailboxes.
    pub storage: bool,
    pub epochs: Epochs,
    /// Binary multiaddresses.
    pub addresses: Vec<Vec<u8>>,
}

/// What a peer asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    Hello(Introduction),
    /// n x (address 32, packet 512), not yet parsed.
    Deposit(Vec<u8>),
    Pull {
        address: Address,
        cursor: Option<Cursor>,
        max: u32,
        /// How long the answer may wait for something new, milliseconds.
        wait_ms: u32,
    },
    Stat {
        address: Address,
    },
    Range {
        address: Address,
        prefixes: Vec<Vec<u8>>,
    },
    Fetch {
        address: Address,
        ids: Vec<Id>,
    },
    Compare {
        after: Option<Address>,
    },
    Lists(Epochs),
    /// A signed list, not yet parsed.
    Offer(Vec<u8>),
    /// Never on the wire: what the reader makes of a request that it cannot read, so that the refusal
    /// reaches the place that knows the peer.
    Malformed(Refusal),
}

/// What it is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Response {
    Members {
        introduction: Introduction,
        members: Vec<Contact>,
    },
    Deposited {
        /// Unix milliseconds of the replica's clock.
        at_ms: u64,
        signature: [u8; 64],
        /// In the order of the deposit.
        answers: Vec<Answer>,
    },
    /// `packets` are n x 512 bytes, not yet parsed.
    Page {
        cursor: Cursor,
        more: bool,
        packets: Vec<u8>,
    },
    Stat {
        stat: Stat,
        digest: Digest,
        cursor: Cursor,
    },
    /// In the order of the prefixes.
    Ranges(Vec<Range>),
    /// n x 512 bytes, not yet parsed.
    Packets(Vec<u8>),
    /// Ascending by address; `next` is where to go on.
    Digests {
        next: Option<Address>,
        digests: Vec<(Address, Digest)>,
    },
    /// Signed lists, not yet parsed.
    Lists(Vec<Vec<u8>>),
    /// Whether an offered list was news.
    Noted(bool),
    Error(Refusal),
}

/// Why a peer does not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {reason}")]
pub struct Refusal {
    pub code: Code,
    /// Milliseconds after which the same question may be asked again; 0 where time changes nothing.
    pub retry_after_ms: u32,
    /// A line for people, at most [`REASON_BYTES_MAX`] bytes.
    pub reason: String,
    /// Whom to ask instead.
    pub closer: Vec<Contact>,
}

impl Refusal {
    pub fn new(code: Code, reason: impl Into<String>) -> Refusal {
        Refusal { code, retry_after_ms: 0, reason: reason.into(), closer: Vec::new() }
    }
}

/// Kinds of refusals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Code {
    /// The frame breaks a rule of this page.
    Malformed = 1,
    /// Others are closer to the address.
    NotResponsible = 2,
    /// Ask again later.
    Overloaded = 3,
    /// Pull from the beginning.
    CursorExpired = 4,
    /// The frame is longer than its kind may be.
    TooLarge = 5,
    /// The store does not work.
    Unavailable = 6,
    /// The peer has asked for more than its share; ask again later.
    Quota = 7,
    /// The peer is not on the swarm's list of nodes.
    NotAdmitted = 8,
}

impl Code {
    const ALL: [Code; 8] = [
        Code::Malformed,
        Code::NotResponsible,
        Code::Overloaded,
        Code::CursorExpired,
        Code::TooLarge,
        Code::Unavailable,
        Code::Quota,
        Code::NotAdmitted,
    ];

    fn read(byte: u8) -> Option<Code> {
        Code::ALL.into_iter().find(|&code| code as u8 == byte)
    }
}

impl std::fmt::Display for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Code::Malformed => "malformed frame",
            Code::NotResponsible => "not responsible",
            Code::Overloaded => "overloaded",
            Code::CursorExpired => "cursor expired",
            Code::TooLarge => "too large",
            Code::Unavailable => "store unavailable",
            Code::Quota => "over quota",
            Code::NotAdmitted => "not admitted",
        })
    }
}

/// The kinds of frames and the most bytes of their bodies.
const KINDS: [(u8, usize); 19] = [
    (1, 1 + EPOCHS_BYTES + ADDRESSES_BYTES_MAX),
    (2, FRAME_PACKETS_MAX * DEPOSIT_BYTES),
    (3, 32 + 4 + 4 + 1 + CURSOR_BYTES),
    (4, 32),
    (5, 32 + 2 + RANGES_FRAME_MAX * 32),
    (6, 32 + FRAME_PACKETS_MAX * 32),
    (7, 1 + 32),
    (8, EPOCHS_BYTES),
    (9, LIST_BYTES_MAX),
    (129, 1 + EPOCHS_BYTES + ADDRESSES_BYTES_MAX + CONTACTS_BYTES_MAX),
    (130, 8 + 64 + 2 + FRAME_PACKETS_MAX * (2 + REASON_BYTES_MAX)),
    (131, PAGE_HEAD_BYTES + FRAME_PACKETS_MAX * PACKET_BYTES),
    (132, 32 + DIGEST_BYTES + CURSOR_BYTES),
    (133, 2 + RANGES_FRAME_MAX * RANGE_BYTES_MAX),
    (134, FRAME_PACKETS_MAX * PACKET_BYTES),
    (135, 1 + 32 + COMPARE_MAILBOXES_MAX * (32 + DIGEST_BYTES)),
    (136, 1 + 2 * (4 + LIST_BYTES_MAX)),
    (137, 1),
    (192, 1 + 4 + 1 + REASON_BYTES_MAX + CONTACTS_BYTES_MAX),
];

/// Kind and length of the body, checked.
///
/// # Errors
/// Another version, an unknown kind, nonzero padding, or a body longer than its kind may have.
pub fn read_header(header: &[u8; HEADER_BYTES]) -> Result<(u8, usize), Refusal> {
    let [version, kind, zero_a, zero_b, length @ ..] = *header;
    let malformed = |reason| Err(Refusal::new(Code::Malformed, reason));
    if version != VERSION {
        return malformed(format!("frame of version {version}; this node speaks version {VERSION}"));
    }
    if (zero_a, zero_b) != (0, 0) {
        return malformed("bytes 2 and 3 of the header are not zero".into());
    }
    let length = u32::from_le_bytes(length) as usize;
    match KINDS.iter().find(|(known, _)| *known == kind) {
        None => malformed(format!("unknown kind {kind} of frame")),
        Some(&(_, max)) if length > max => Err(Refusal::new(
            Code::TooLarge,
            format!("a frame of kind {kind} announces {length} bytes; at most {max} are read"),
        )),
        Some(_) => Ok((kind, length)),
    }
}

/// A frame as header and head of the body in one piece, and the bulk of the body.
pub struct Frame {
    pub head: Vec<u8>,
    pub bulk: Vec<u8>,
}

impl Frame {
    fn new(kind: u8, head: Vec<u8>, bulk: Vec<u8>) -> Frame {
        let mut framed = Vec::with_capacity(HEADER_BYTES + head.len());
        framed.extend([VERSION, kind, 0, 0]);
        framed.extend(((head.len() + bulk.len()) as u32).to_le_bytes());
        framed.extend(head);
        Frame { head: framed, bulk }
    }

    /// Bytes on the wire.
    pub fn bytes(&self) -> usize {
        self.head.len() + self.bulk.len()
    }
}
