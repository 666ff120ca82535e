use super::*;
use proptest::prelude::*;

fn peer(byte: u8) -> NodeKey {
    NodeKey([byte; 32])
}

fn only_packets(rate: Rate) -> Rates {
    let mut rates = Rates::UNLIMITED;
    rates.peer.packets = rate;
    rates
}

fn packets(packets: u64) -> Cost {
    Cost { packets, ..Cost::default() }
}

#[test]
fn a_bucket_gives_its_burst_and_then_its_rate() {
    let mut quotas = Quotas::new(only_packets(Rate::new(100, 50)));
    assert_eq!(quotas.admit(1_000, peer(1), None, packets(50)), Ok(()));
    let refused = quotas.admit(1_000, peer(1), None, packets(1)).unwrap_err();
    assert_eq!(refused, RetryAfter { ms: 10, limited: Limited::Peer });
    assert!(refused.to_string().contains("ask again in 10 ms"));
    assert_eq!(quotas.admit(1_009, peer(1), None, packets(1)).unwrap_err().ms, 1);
    assert_eq!(quotas.admit(1_010, peer(1), None, packets(1)), Ok(()));
    // Another peer is not concerned, and nobody gathers more than a burst.
    assert_eq!(quotas.admit(1_010, peer(2), None, packets(50)), Ok(()));
    assert_eq!(quotas.admit(99_000, peer(1), None, packets(50)), Ok(()));
    assert_eq!(quotas.admit(99_000, peer(1), None, packets(50)).unwrap_err().ms, 500);
    let never = quotas.admit(99_000, peer(1), None, packets(51)).unwrap_err();
    assert_eq!(never.ms, RetryAfter::NEVER);
    assert!(never.to_string().contains("ask for less"));
    // A clock set back brings nothing, and the answer says for how long.
    assert_eq!(quotas.admit(98_000, peer(1), None, packets(50)).unwrap_err().ms, 1_500);
}

#[test]
fn a_refused_request_takes_nothing_anywhere() {
    let mut rates = Rates::UNLIMITED;
    rates.peer.requests = Rate::new(10, 10);
    rates.peer.packets = Rate::new(10, 10);
    rates.subnet.requests = Rate::new(10, 2);
    let mut quotas = Quotas::new(rates);
    let (home, cost) = (Some("192.0.2.7".parse().unwrap()), Cost { requests: 1, packets: 5, bytes: 1 });
    assert_eq!(quotas.admit(0, peer(1), home, cost), Ok(()));
    assert_eq!(quotas.admit(0, peer(2), home, cost), Ok(()));
    let refused = quotas.admit(0, peer(3), home, cost).unwrap_err();
    assert_eq!(refused, RetryAfter { ms: 100, limited: Limited::Subnet });
    // From elsewhere the refused peer has all its tokens.
    assert_eq!(quotas.admit(0, peer(3), None, Cost { packets: 10, ..cost }), Ok(()));
    // The peer's own bucket takes longer than the subnet's.
    let refused = quotas.admit(0, peer(3), home, Cost { packets: 10, ..cost }).unwrap_err();
    assert_eq!(refused, RetryAfter { ms: 1_000, limited: Limited::Peer });
    // And the subnet's is untouched by that.
    assert_eq!(quotas.admit(100, peer(4), home, cost), Ok(()));
}

#[test]
fn neighbours_share_a_subnet_and_loopback_is_none() {
    let of = |text: &str| Subnet::of(text.parse().unwrap());
    assert_eq!(of("192.0.2.1"), of("192.0.2.254"));
    assert_eq!(of("192.0.2.1"), of("::ffff:192.0.2.9"));
    assert_ne!(of("192.0.2.1"), of("192.0.3.1"));
    assert_eq!(of("2001:db8:1::1"), of("2001:db8:1:ffff::2"));
    assert_ne!(of("2001:db8:1::1"), of("2001:db8:2::1"));
    for loopback in ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"] {
        assert_eq!(of(loopback), None, "{loopback}");
    }
}

#[test]
fn the_defaults_let_a_trusted_peer_deposit_20_000_packets_a_second() {
    let mut quotas = Quotas::new(Rates::default());
    let loopback = Some("127.0.0.1".parse().unwrap());
    for second in 0..60 {
        for frame in 0..20 {
            let now = second * 1_000 + frame * 50;
            let cost = Cost { requests: 1, packets: 1_000, bytes: 0 };
            assert_eq!(quotas.admit(now, peer(1), loopback, cost), Ok(()), "at {now}");
        }
    }
    assert_eq!(quotas.admit_author(0, &[1; 32], 200_000), Ok(()));
    assert_eq!(
        quotas.admit_author(0, &[1; 32], 1).unwrap_err(),
        RetryAfter { ms: 1, limited: Limited::Author }
    );
    assert_eq!(quotas.admit_author(0, &[2; 32], 200_000), Ok(()));
}

#[test]
fn a_crowd_of_newcomers_shares_one_bucket_and_slows_nobody_else() {
    let mut quotas = Quotas::bounded(only_packets(Rate::new(10, 10)), 4);
    for old in 0..4 {
        assert_eq!(quotas.admit(0, peer(old), None, packets(6)), Ok(()));
    }
    // Nobody is full before 600 ms: the crowd has ten packets together.
    let passed = (10..110).filter(|&new| quotas.admit(500, peer(new), None, packets(1)).is_ok()).count();
    assert_eq!((passed, quotas.peers.len()), (10, 4));
    assert_eq!(quotas.admit(500, peer(0), None, packets(4)), Ok(()));
    // Then newcomers take the places of the idle, but not of peer 0, and do not get a second burst.
    assert_eq!(quotas.admit(600, peer(10), None, packets(1)), Ok(()));
    assert_eq!(quotas.admit(600, peer(10), None, packets(1)).unwrap_err().ms, 100);
    // Would peer 0 have lost its place, it had one packet now.
    assert_eq!((quotas.peers.len(), quotas.admit(600, peer(0), None, packets(6))), (4, Ok(())));
}

/// One attempt: pause before it, who, how much.
type Attempt = (u64, u8, u64);

fn attempts() -> impl Strategy<Value = (Rate, usize, Vec<Attempt>)> {
    let attempt = (prop_oneof![3 => Just(0u64), 3 => 0u64..40, 1 => 0u64..3_000], 0u8..8, 0u64..30);
    let rate = (1u64..2_000, 1u64..60).prop_map(|(per_second, burst)| Rate::new(per_second, burst));
    (rate, 1usize..10, prop::collection::vec(attempt, 1..150))
}

proptest! {
    /// The definition, for every key and every window that begins and ends with an admission; the
    /// bound on memory; and that the time to wait is neither too long nor too short.
    #[test]
    fn no_window_has_more_than_burst_and_rate((rate, max, attempts) in attempts()) {
        let mut quotas = Quotas::bounded(only_packets(rate), max);
        let mut passed: Vec<(u64, u8, u64)> = Vec::new();
        let mut now = 0;
        for (pause, who, cost) in attempts {
            now += pause;
            match quotas.admit(now, peer(who), None, packets(cost)) {
                Ok(()) => passed.push((now, who, cost)),
                Err(RetryAfter { ms: RetryAfter::NEVER, .. }) => prop_assert!(cost > rate.burst),
                Err(refused) => {
                    prop_assert!(refused.ms > 0);
                    let again = |ms: u64| quotas.clone().admit(now + ms, peer(who), None, packets(cost));
                    prop_assert_eq!(again(refused.ms), Ok(()));
                    prop_assert_eq!(again(refused.ms - 1).map_err(|refused| refused.ms), Err(1));
                }
            }
            prop_assert!(quotas.peers.len() <= max);
        }
        for (first, &(from, who, _)) in passed.iter().enumerate() {
            let mut sum = 0;
            for &(to, _, cost) in passed[first..].iter().filter(|(_, other, _)| *other == who) {
                sum += cost;
                prop_assert!(sum * 1_000 <= rate.burst * 1_000 + rate.per_second * (to - from));
            }
        }
    }

    /// Where everybody has a place, each key is served as if it were alone: by the textbook's bucket,
    /// in floating point with room for its rounding.
    #[test]
    fn with_places_for_all_nobody_is_refused_for_another((rate, _, attempts) in attempts()) {
        let mut quotas = Quotas::bounded(only_packets(rate), 8);
        let mut levels = [(rate.burst as f64, 0u64); 8];
        let mut now = 0;
        for (pause, who, cost) in attempts {
            now += pause;
            let (level, at) = &mut levels[usize::from(who)];
            let more = rate.per_second as f64 * (now - *at) as f64 / 1_000.0;
            (*level, *at) = ((*level + more).min(rate.burst as f64), now);
            let admitted = quotas.admit(now, peer(who), None, packets(cost)).is_ok();
            if (*level - cost as f64).abs() > 1e-6 {
                prop_assert_eq!(admitted, cost as f64 <= *level);
            }
            if admitted {
                *level -= cost as f64;
            }
        }
    }

    /// Extreme numbers and clocks that jump neither panic nor overflow.
    #[test]
    fn nothing_overflows(steps in prop::collection::vec((any::<u64>(), any::<u64>(), any::<u64>(), any::<u64>()), 1..20)) {
        let (_, per_second, burst, _) = steps[0];
        let mut quotas = Quotas::bounded(only_packets(Rate::new(per_second, burst)), 2);
        for (now, cost, who, _) in steps {
            if let Err(refused) = quotas.admit(now, peer(who as u8), None, packets(cost)) {
                prop_assert!(refused.ms > 0);
            }
        }
    }
}
