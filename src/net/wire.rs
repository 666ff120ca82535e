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
//! | 1 | hello | role u8 (0 client, 1 keeps mailboxes), own addresses |
//! | 2 | deposit | n x (address 32, packet 512), 1..=1,024 |
//! | 3 | pull | address 32, most packets u32, has cursor u8, cursor 48 |
//! | 4 | stat | address 32 |
//!
//! | kind | response | body |
//! |---|---|---|
//! | 129 | members | role u8, own addresses, count u16, count x (length u8, peer id, addresses) |
//! | 130 | deposited | n u16, n x u8 (0 stored, 1 duplicate, 2 rejected), per rejected one length u8 and reason |
//! | 131 | page | cursor 48, more u8, n x packet 512 |
//! | 132 | stat | packets, observed, syntheses, retractions, u64 each |
//! | 192 | error | code u8, line for people |
//!
//! Addresses: count u8, count x (length u8, binary multiaddress). Cursor: replica 32, epoch u64,
//! sequence u64. Every count and length is checked against `limits` before memory is taken for it.

use crate::address::Address;
use crate::limits::{
    FRAME_PACKETS_MAX, MEMBER_ADDRESSES_MAX, MEMBERS_MAX, MULTIADDRESS_BYTES_MAX, PACKET_BYTES,
    PEER_ID_BYTES_MAX, REASON_BYTES_MAX,
};
use crate::node::Contact;
use crate::node::deposit::Answer;
use crate::packet::Id;
use crate::store::{Cursor, Stat};

/// Bytes before the body.
pub const HEADER_BYTES: usize = 8;
/// Bytes of one packet in a deposit: its address and itself.
pub const DEPOSIT_BYTES: usize = 32 + PACKET_BYTES;
const VERSION: u8 = 1;
const CURSOR_BYTES: usize = 48;
const ADDRESSES_BYTES_MAX: usize = 1 + MEMBER_ADDRESSES_MAX * (1 + MULTIADDRESS_BYTES_MAX);
const PAGE_HEAD_BYTES: usize = CURSOR_BYTES + 1;

const _: () = assert!(REASON_BYTES_MAX <= 255 && MULTIADDRESS_BYTES_MAX <= 255 && PEER_ID_BYTES_MAX <= 255);

/// What a peer asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    Hello {
        storage: bool,
        addresses: Vec<Vec<u8>>,
    },
    /// n x (address 32, packet 512), not yet parsed.
    Deposit(Vec<u8>),
    Pull {
        address: Address,
        cursor: Option<Cursor>,
        max: u32,
    },
    Stat {
        address: Address,
    },
    /// Never on the wire: what the reader makes of a request that it cannot read, so that the refusal
    /// reaches the place that knows the peer.
    Malformed(Refusal),
}

/// What it is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Response {
    Members {
        storage: bool,
        addresses: Vec<Vec<u8>>,
        members: Vec<Contact>,
    },
    /// In the order of the deposit.
    Deposited(Vec<Answer>),
    /// `packets` are n x 512 bytes, not yet parsed.
    Page {
        cursor: Cursor,
        more: bool,
        packets: Vec<u8>,
    },
    Stat(Stat),
    Error(Refusal),
}

/// Why a peer does not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {reason}")]
pub struct Refusal {
    pub code: Code,
    /// A line for people, at most [`REASON_BYTES_MAX`] bytes.
    pub reason: String,
}

impl Refusal {
    pub fn new(code: Code, reason: impl Into<String>) -> Refusal {
        Refusal { code, reason: reason.into() }
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
}

impl Code {
    fn read(byte: u8) -> Option<Code> {
        use Code::*;
        [Malformed, NotResponsible, Overloaded, CursorExpired, TooLarge, Unavailable]
            .into_iter()
            .find(|&code| code as u8 == byte)
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
        })
    }
}

/// The kinds of frames and the most bytes of their bodies.
const KINDS: [(u8, usize); 9] = [
    (1, 1 + ADDRESSES_BYTES_MAX),
    (2, FRAME_PACKETS_MAX * DEPOSIT_BYTES),
    (3, 32 + 4 + 1 + CURSOR_BYTES),
    (4, 32),
    (129, 1 + ADDRESSES_BYTES_MAX + 2 + MEMBERS_MAX * (1 + PEER_ID_BYTES_MAX + ADDRESSES_BYTES_MAX)),
    (130, 2 + FRAME_PACKETS_MAX * (2 + REASON_BYTES_MAX)),
    (131, PAGE_HEAD_BYTES + FRAME_PACKETS_MAX * PACKET_BYTES),
    (132, 32),
    (192, 1 + REASON_BYTES_MAX),
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

impl Request {
    pub fn into_frame(self) -> Frame {
        let mut head = Vec::new();
        match self {
            Request::Hello { storage, addresses } => {
                head.push(u8::from(storage));
                write_addresses(&mut head, &addresses);
                Frame::new(1, head, Vec::new())
            }
            Request::Deposit(bytes) => Frame::new(2, head, bytes),
            Request::Pull { address, cursor, max } => {
                head.extend(address);
                head.extend(max.to_le_bytes());
                head.push(u8::from(cursor.is_some()));
                write_cursor(
                    &mut head,
                    &cursor.unwrap_or(Cursor { replica: [0; 32], epoch: 0, sequence: 0 }),
                );
                Frame::new(3, head, Vec::new())
            }
            Request::Stat { address } => Frame::new(4, address.to_vec(), Vec::new()),
            Request::Malformed(refusal) => Response::Error(refusal).into_frame(),
        }
    }

    /// # Errors
    /// What breaks the layout of its kind.
    pub fn read(kind: u8, body: Vec<u8>) -> Result<Request, Refusal> {
        let mut reader = Reader(&body);
        let request = match kind {
            1 => Request::Hello { storage: reader.flag()?, addresses: reader.addresses()? },
            2 => {
                if body.is_empty() || !body.len().is_multiple_of(DEPOSIT_BYTES) {
                    let reason = format!("{} bytes are not n x {DEPOSIT_BYTES}", body.len());
                    return Err(Refusal::new(Code::Malformed, reason));
                }
                return Ok(Request::Deposit(body));
            }
            3 => {
                let address = reader.id()?;
                let max = reader.u32()?;
                let has_cursor = reader.flag()?;
                let cursor = reader.cursor()?;
                Request::Pull { address, cursor: has_cursor.then_some(cursor), max }
            }
            4 => Request::Stat { address: reader.id()? },
            _ => return Err(Refusal::new(Code::Malformed, format!("kind {kind} is no request"))),
        };
        reader.end()?;
        Ok(request)
    }
}

impl Response {
    pub fn into_frame(self) -> Frame {
        let mut head = Vec::new();
        match self {
            Response::Members { storage, addresses, members } => {
                head.push(u8::from(storage));
                write_addresses(&mut head, &addresses);
                let members: Vec<&Contact> =
                    members.iter().filter(|m| m.peer.len() <= PEER_ID_BYTES_MAX).take(MEMBERS_MAX).collect();
                head.extend((members.len() as u16).to_le_bytes());
                for member in members {
                    head.push(member.peer.len() as u8);
                    head.extend(&member.peer);
                    write_addresses(&mut head, &member.addresses);
                }
                Frame::new(129, head, Vec::new())
            }
            Response::Deposited(answers) => {
                head.extend((answers.len() as u16).to_le_bytes());
                head.extend(answers.iter().map(|answer| match answer {
                    Answer::Stored => 0,
                    Answer::Duplicate => 1,
                    Answer::Rejected(_) => 2,
                }));
                for answer in &answers {
                    if let Answer::Rejected(reason) = answer {
                        let reason = shortened(reason);
                        head.push(reason.len() as u8);
                        head.extend(reason.as_bytes());
                    }
                }
                Frame::new(130, head, Vec::new())
            }
            Response::Page { cursor, more, packets } => {
                write_cursor(&mut head, &cursor);
                head.push(u8::from(more));
                Frame::new(131, head, packets)
            }
            Response::Stat(stat) => {
                for number in [stat.packets, stat.observed, stat.syntheses, stat.retractions] {
                    head.extend(number.to_le_bytes());
                }
                Frame::new(132, head, Vec::new())
            }
            Response::Error(refusal) => {
                head.push(refusal.code as u8);
                head.extend(shortened(&refusal.reason).as_bytes());
                Frame::new(192, head, Vec::new())
            }
        }
    }

    /// # Errors
    /// What breaks the layout of its kind.
    pub fn read(kind: u8, mut body: Vec<u8>) -> Result<Response, Refusal> {
        let mut reader = Reader(&body);
        let response = match kind {
            129 => {
                let storage = reader.flag()?;
                let addresses = reader.addresses()?;
                let count = usize::from(reader.u16()?);
                if count > MEMBERS_MAX {
                    return Err(Refusal::new(Code::Malformed, format!("{count} members")));
                }
                let mut members = Vec::new();
                for _ in 0..count {
                    let length = usize::from(reader.u8()?);
                    let peer = reader.take(length)?.to_vec();
                    members.push(Contact { peer, addresses: reader.addresses()? });
                }
                Response::Members { storage, addresses, members }
            }
            130 => Response::Deposited(reader.answers()?),
            131 => {
                let cursor = reader.cursor()?;
                let more = reader.flag()?;
                if !reader.0.len().is_multiple_of(PACKET_BYTES) {
                    let reason = format!("{} bytes are not n x {PACKET_BYTES}", reader.0.len());
                    return Err(Refusal::new(Code::Malformed, reason));
                }
                body.drain(..PAGE_HEAD_BYTES);
                return Ok(Response::Page { cursor, more, packets: body });
            }
            132 => Response::Stat(Stat {
                packets: reader.u64()?,
                observed: reader.u64()?,
                syntheses: reader.u64()?,
                retractions: reader.u64()?,
            }),
            192 => {
                let code = reader.u8()?;
                let code = Code::read(code)
                    .ok_or_else(|| Refusal::new(Code::Malformed, format!("unknown error code {code}")))?;
                let reason = printable(reader.take(reader.0.len())?);
                Response::Error(Refusal { code, reason })
            }
            _ => return Err(Refusal::new(Code::Malformed, format!("kind {kind} is no response"))),
        };
        reader.end()?;
        Ok(response)
    }
}

/// At most [`REASON_BYTES_MAX`] bytes, cut between characters.
fn shortened(reason: &str) -> &str {
    &reason[..reason.floor_char_boundary(REASON_BYTES_MAX)]
}

/// A stranger's line as it may be printed: no control characters, which could rewrite a terminal.
fn printable(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn write_cursor(to: &mut Vec<u8>, cursor: &Cursor) {
    to.extend(cursor.replica);
    to.extend(cursor.epoch.to_le_bytes());
    to.extend(cursor.sequence.to_le_bytes());
}

fn write_addresses(to: &mut Vec<u8>, addresses: &[Vec<u8>]) {
    let fitting =
        || addresses.iter().filter(|a| a.len() <= MULTIADDRESS_BYTES_MAX).take(MEMBER_ADDRESSES_MAX);
    to.push(fitting().count() as u8);
    for address in fitting() {
        to.push(address.len() as u8);
        to.extend(address);
    }
}

/// Takes a body apart from its front.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], Refusal> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or_else(|| {
            let reason = format!("the body ends {} bytes early", count - self.0.len());
            Refusal::new(Code::Malformed, reason)
        })?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Refusal> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    fn u8(&mut self) -> Result<u8, Refusal> {
        Ok(self.array::<1>()?[0])
    }
    fn u16(&mut self) -> Result<u16, Refusal> {
        self.array().map(u16::from_le_bytes)
    }
    fn u32(&mut self) -> Result<u32, Refusal> {
        self.array().map(u32::from_le_bytes)
    }
    fn u64(&mut self) -> Result<u64, Refusal> {
        self.array().map(u64::from_le_bytes)
    }
    fn id(&mut self) -> Result<Id, Refusal> {
        self.array()
    }

    fn flag(&mut self) -> Result<bool, Refusal> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(Refusal::new(Code::Malformed, format!("a flag is {other} instead of 0 or 1"))),
        }
    }

    fn cursor(&mut self) -> Result<Cursor, Refusal> {
        Ok(Cursor { replica: self.id()?, epoch: self.u64()?, sequence: self.u64()? })
    }

    fn addresses(&mut self) -> Result<Vec<Vec<u8>>, Refusal> {
        let count = usize::from(self.u8()?);
        if count > MEMBER_ADDRESSES_MAX {
            return Err(Refusal::new(Code::Malformed, format!("{count} addresses of one node")));
        }
        (0..count)
            .map(|_| {
                let length = usize::from(self.u8()?);
                Ok(self.take(length)?.to_vec())
            })
            .collect()
    }

    fn answers(&mut self) -> Result<Vec<Answer>, Refusal> {
        let count = usize::from(self.u16()?);
        let codes = self.take(count)?;
        codes
            .iter()
            .map(|code| match code {
                0 => Ok(Answer::Stored),
                1 => Ok(Answer::Duplicate),
                2 => {
                    let length = usize::from(self.u8()?);
                    Ok(Answer::Rejected(printable(self.take(length)?)))
                }
                other => Err(Refusal::new(Code::Malformed, format!("unknown result {other}"))),
            })
            .collect()
    }

    fn end(&self) -> Result<(), Refusal> {
        match self.0.len() {
            0 => Ok(()),
            rest => Err(Refusal::new(Code::Malformed, format!("{rest} bytes too many"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn split(frame: Frame) -> (u8, Vec<u8>) {
        let bytes = [frame.head, frame.bulk].concat();
        let mut header = [0; HEADER_BYTES];
        header.copy_from_slice(&bytes[..HEADER_BYTES]);
        let (kind, length) = read_header(&header).unwrap();
        assert_eq!(length, bytes.len() - HEADER_BYTES);
        (kind, bytes[HEADER_BYTES..].to_vec())
    }

    fn cursor() -> impl Strategy<Value = Cursor> {
        any::<([u8; 32], u64, u64)>().prop_map(|(replica, epoch, sequence)| Cursor {
            replica,
            epoch,
            sequence,
        })
    }

    fn addresses() -> impl Strategy<Value = Vec<Vec<u8>>> {
        prop::collection::vec(
            prop::collection::vec(any::<u8>(), 0..=MULTIADDRESS_BYTES_MAX),
            0..=MEMBER_ADDRESSES_MAX,
        )
    }

    fn request() -> impl Strategy<Value = Request> {
        prop_oneof![
            (any::<bool>(), addresses())
                .prop_map(|(storage, addresses)| Request::Hello { storage, addresses }),
            (1usize..5, any::<u8>()).prop_map(|(n, byte)| Request::Deposit(vec![byte; n * DEPOSIT_BYTES])),
            (any::<[u8; 32]>(), prop::option::of(cursor()), any::<u32>())
                .prop_map(|(address, cursor, max)| Request::Pull { address, cursor, max }),
            any::<[u8; 32]>().prop_map(|address| Request::Stat { address }),
        ]
    }

    fn response() -> impl Strategy<Value = Response> {
        let contact = (prop::collection::vec(any::<u8>(), 0..=PEER_ID_BYTES_MAX), addresses())
            .prop_map(|(peer, addresses)| Contact { peer, addresses });
        let answer = prop_oneof![
            Just(Answer::Stored),
            Just(Answer::Duplicate),
            "[a-z]{0,255}".prop_map(Answer::Rejected),
        ];
        prop_oneof![
            (any::<bool>(), addresses(), prop::collection::vec(contact, 0..5))
                .prop_map(|(storage, addresses, members)| Response::Members { storage, addresses, members }),
            prop::collection::vec(answer, 0..40).prop_map(Response::Deposited),
            (cursor(), any::<bool>(), 0usize..4).prop_map(|(cursor, more, n)| Response::Page {
                cursor,
                more,
                packets: vec![7; n * PACKET_BYTES],
            }),
            any::<[u64; 4]>().prop_map(|[packets, observed, syntheses, retractions]| {
                Response::Stat(Stat { packets, observed, syntheses, retractions })
            }),
            "[a-z]{0,255}".prop_map(|reason| Response::Error(Refusal::new(Code::Overloaded, reason))),
        ]
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(request in request(), response in response()) {
            let (kind, body) = split(request.clone().into_frame());
            prop_assert_eq!(Request::read(kind, body), Ok(request));
            let (kind, body) = split(response.clone().into_frame());
            prop_assert_eq!(Response::read(kind, body), Ok(response));
        }

        /// One byte less or more is refused for every kind but those made of whole packets, where a
        /// part of a packet is.
        #[test]
        fn no_shorter_or_longer_body_passes(request in request(), response in response()) {
            for change in [|b: &mut Vec<u8>| { b.pop(); }, |b: &mut Vec<u8>| b.push(0)] {
                let (kind, mut body) = split(request.clone().into_frame());
                change(&mut body);
                prop_assert!(Request::read(kind, body).is_err());
                let (kind, mut body) = split(response.clone().into_frame());
                if kind != 192 {
                    change(&mut body);
                    prop_assert!(Response::read(kind, body).is_err());
                }
            }
        }

        #[test]
        fn no_bytes_panic(header: [u8; 8], kind: u8, body in prop::collection::vec(any::<u8>(), 0..2_000)) {
            let _ = read_header(&header);
            let _ = Request::read(kind, body.clone());
            let _ = Response::read(kind, body);
        }
    }

    #[test]
    fn lengths_are_refused_before_memory_is_taken() {
        for (kind, max) in KINDS {
            let header = |length: usize| {
                let mut header = [VERSION, kind, 0, 0, 0, 0, 0, 0];
                header[4..].copy_from_slice(&(length as u32).to_le_bytes());
                header
            };
            assert_eq!(read_header(&header(max)), Ok((kind, max)));
            assert_eq!(read_header(&header(max + 1)).unwrap_err().code, Code::TooLarge);
            assert_eq!(read_header(&header(u32::MAX as usize)).unwrap_err().code, Code::TooLarge);
        }
    }

    #[test]
    fn a_strangers_line_cannot_rewrite_the_terminal() {
        let (kind, mut body) = split(Response::Error(Refusal::new(Code::Overloaded, "x")).into_frame());
        body.extend(b"\x1b[2J\n");
        let Ok(Response::Error(refusal)) = Response::read(kind, body) else { panic!("an error") };
        assert_eq!(refusal.reason, "x [2J ");
    }
}
