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
    any::<([u8; 32], u64, u64)>().prop_map(|(replica, epoch, sequence)| Cursor { replica, epoch, sequence })
}

fn digest() -> impl Strategy<Value = Digest> {
    any::<(u64, [u64; 4])>().prop_map(|(count, sum)| Digest { count, sum })
}

fn epochs() -> impl Strategy<Value = Epochs> {
    any::<(u64, u64)>().prop_map(|(nodes, authors)| Epochs { nodes, authors })
}

fn addresses() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let address = prop::collection::vec(any::<u8>(), 0..=MULTIADDRESS_BYTES_MAX);
    prop::collection::vec(address, 0..=MEMBER_ADDRESSES_MAX)
}

fn introduction() -> impl Strategy<Value = Introduction> {
    (any::<bool>(), epochs(), addresses()).prop_map(|(storage, epochs, addresses)| Introduction {
        storage,
        epochs,
        addresses,
    })
}

fn contacts() -> impl Strategy<Value = Vec<Contact>> {
    let contact = (prop::collection::vec(any::<u8>(), 0..=PEER_ID_BYTES_MAX), addresses())
        .prop_map(|(peer, addresses)| Contact { peer, addresses });
    prop::collection::vec(contact, 0..5)
}

fn range() -> impl Strategy<Value = Range> {
    prop_oneof![
        prop::collection::vec(any::<[u8; 32]>(), 0..9).prop_map(Range::Ids),
        digest().prop_map(|digest| Range::Parts(Box::new([digest; 256]))),
    ]
}

fn request() -> impl Strategy<Value = Request> {
    let id = any::<[u8; 32]>;
    let prefixes = prop::collection::vec(prop::collection::vec(any::<u8>(), 0..=31), 0..9);
    let bytes = prop::collection::vec(any::<u8>(), 0..500);
    prop_oneof![
        introduction().prop_map(Request::Hello),
        (1usize..5, any::<u8>()).prop_map(|(n, byte)| Request::Deposit(vec![byte; n * DEPOSIT_BYTES])),
        (id(), prop::option::of(cursor()), any::<(u32, u32)>())
            .prop_map(|(address, cursor, (max, wait_ms))| Request::Pull { address, cursor, max, wait_ms }),
        id().prop_map(|address| Request::Stat { address }),
        (id(), prefixes).prop_map(|(address, prefixes)| Request::Range { address, prefixes }),
        (id(), prop::collection::vec(id(), 1..9)).prop_map(|(address, ids)| Request::Fetch { address, ids }),
        prop::option::of(id()).prop_map(|after| Request::Compare { after }),
        epochs().prop_map(Request::Lists),
        bytes.prop_map(Request::Offer),
    ]
}

fn response() -> impl Strategy<Value = Response> {
    let id = any::<[u8; 32]>;
    let answer = prop_oneof![
        Just(Answer::Stored),
        Just(Answer::Duplicate),
        "[a-z]{0,255}".prop_map(Answer::Rejected),
    ];
    let bytes = || prop::collection::vec(any::<u8>(), 0..500);
    let code = (0..Code::ALL.len()).prop_map(|index| Code::ALL[index]);
    prop_oneof![
        (introduction(), contacts())
            .prop_map(|(introduction, members)| Response::Members { introduction, members }),
        (any::<u64>(), any::<u8>(), prop::collection::vec(answer, 0..40))
            .prop_map(|(at_ms, byte, answers)| Response::Deposited { at_ms, signature: [byte; 64], answers }),
        (cursor(), any::<bool>(), 0usize..4).prop_map(|(cursor, more, n)| Response::Page {
            cursor,
            more,
            packets: vec![7; n * PACKET_BYTES],
        }),
        (any::<[u64; 4]>(), digest(), cursor()).prop_map(
            |([packets, observed, syntheses, retractions], digest, cursor)| {
                let stat = Stat { packets, observed, syntheses, retractions };
                Response::Stat { stat, digest, cursor }
            }
        ),
        prop::collection::vec(range(), 0..4).prop_map(Response::Ranges),
        (0usize..4).prop_map(|n| Response::Packets(vec![7; n * PACKET_BYTES])),
        (prop::option::of(id()), prop::collection::vec((id(), digest()), 0..9))
            .prop_map(|(next, digests)| Response::Digests { next, digests }),
        prop::collection::vec(bytes(), 0..3).prop_map(Response::Lists),
        any::<bool>().prop_map(Response::Noted),
        (code, any::<u32>(), "[a-z]{0,255}", contacts()).prop_map(
            |(code, retry_after_ms, reason, closer)| {
                Response::Error(Refusal { code, retry_after_ms, reason, closer })
            }
        ),
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

    /// One byte less or more is refused for every kind but those that end in bytes of any length.
    #[test]
    fn no_shorter_or_longer_body_passes(request in request(), response in response()) {
        for change in [|b: &mut Vec<u8>| { b.pop(); }, |b: &mut Vec<u8>| b.push(0)] {
            let (kind, mut body) = split(request.clone().into_frame());
            change(&mut body);
            prop_assert!(kind == 9 || Request::read(kind, body).is_err());
            let (kind, mut body) = split(response.clone().into_frame());
            change(&mut body);
            // One byte less than no packets is the same.
            let same = Response::read(kind, body.clone()).as_ref() == Ok(&response);
            prop_assert!(same || Response::read(kind, body).is_err());
        }
    }

    #[test]
    fn no_bytes_panic(header: [u8; 8], kind: u8, body in prop::collection::vec(any::<u8>(), 0..2_000)) {
        let _ = read_header(&header);
        for kind in KINDS.iter().map(|(kind, _)| *kind).chain([kind]) {
            let _ = Request::read(kind, body.clone());
            let _ = Response::read(kind, body.clone());
        }
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
    let reason = "x\x1b[2J\n";
    let (kind, body) = split(Response::Error(Refusal::new(Code::Overloaded, reason)).into_frame());
    let Ok(Response::Error(refusal)) = Response::read(kind, body) else { panic!("an error") };
    assert_eq!(refusal.reason, "x [2J ");
}
