use super::*;
use crate::node::reconcile::Held;
use crate::packet::{AuthorKey, Draft, Kind, Verified};
use proptest::prelude::*;
use std::collections::{BTreeSet, VecDeque};

const PAGE: usize = 3;

fn key(byte: u8) -> NodeKey {
    NodeKey([byte; 32])
}

fn packets(count: u32) -> Vec<Verified> {
    let author = AuthorKey::from_seed([1; 32]);
    let packet = |n: u32| {
        let mut draft = Draft::new(Kind::Observed, [1; 32], 1);
        draft.reference = *blake3::hash(&n.to_le_bytes()).as_bytes();
        draft.values[0] = Some((n as u16, 0));
        author.sign(&draft).expect("a draft by the rules")
    };
    (0..count).map(packet).collect()
}

/// How a replica behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    Honest,
    Silent,
    /// Answers this many questions, and then none.
    Dies(usize),
    /// Gives pages without the packets of odd number, and says nothing is missing.
    Conceals,
    /// Invents ids that nobody has.
    Invents,
    /// Gives cursors in the name of another.
    Impersonates,
}

struct Replica {
    manner: Manner,
    /// Numbers of packets in the order of their arrival.
    held: Vec<usize>,
    asked: usize,
}

struct World {
    all: Vec<Verified>,
    replicas: BTreeMap<NodeKey, Replica>,
    moved: usize,
}

impl World {
    /// What comes back; `None` where nothing ever does. Packets go into `own`.
    fn answer(&mut self, action: &Action, own: &mut Seen) -> Option<Input> {
        let replica = action.replica();
        let Replica { manner, held, asked } = self.replicas.get_mut(&replica)?;
        *asked += 1;
        match *manner {
            Manner::Silent => return None,
            Manner::Dies(after) if *asked > after => return None,
            _ => {}
        }
        let name = if *manner == Manner::Impersonates { [0xEE; 32] } else { replica.0 };
        let cursor = |sequence: usize| Cursor { replica: name, epoch: 1, sequence: sequence as u64 };
        let shown = |n: &usize| *manner != Manner::Conceals || n.is_multiple_of(2);
        let mut ids: BTreeSet<Id> = held.iter().filter(|n| shown(n)).map(|&n| self.all[n].id()).collect();
        if *manner == Manner::Invents {
            ids.extend((0..40u8).map(|n| [n; 32]));
        }
        Some(match action {
            Action::Page { cursor: at, .. } => {
                let from = at.map_or(0, |cursor| cursor.sequence as usize);
                let page = &held[from..held.len().min(from + PAGE)];
                let delivered: Vec<&usize> = page.iter().filter(|n| shown(n)).collect();
                for &&n in &delivered {
                    own.insert(&self.all[n]);
                }
                self.moved += delivered.len();
                let end = from + page.len();
                let more = end < held.len();
                // A concealer has to deliver something on a page that says there is more.
                if more && delivered.is_empty() {
                    return Some(Input::Page {
                        replica,
                        cursor: cursor(held.len()),
                        more: false,
                        packets: 0,
                    });
                }
                Input::Page { replica, cursor: cursor(end), more, packets: delivered.len() }
            }
            Action::Stat { .. } => {
                Input::Stat { replica, digest: ids.iter().collect(), cursor: cursor(held.len()) }
            }
            Action::Ranges { prefixes, .. } => {
                let range = |p: &Prefix| {
                    let under = ids.iter().filter(|id| id.starts_with(p)).map(|id| Ok::<Id, ()>(*id));
                    Range::of(p, under).expect("no error")
                };
                Input::Ranges { replica, ranges: prefixes.iter().map(range).collect() }
            }
            Action::Fetch { ids, .. } => {
                for packet in self.all.iter().filter(|packet| ids.contains(&packet.id())) {
                    own.insert(packet);
                    self.moved += 1;
                }
                Input::Fetched { replica }
            }
        })
    }

    /// One pull; answers come in an order that `shuffle` chooses. Gives the new position, the time it
    /// took with each answer taking 1 ms, and the replicas that delivered all.
    fn pull(
        &mut self,
        from: &[Cursor],
        own: &mut Seen,
        shuffle: &mut impl Iterator<Item = usize>,
    ) -> (Vec<Cursor>, u64, usize) {
        let keys: Vec<NodeKey> = self.replicas.keys().copied().collect();
        let mut gather = Gather::new(&keys, from, 0);
        let mut asks: VecDeque<Action> = gather.start().into();
        let mut now = 0;
        let mut steps = 0;
        while !gather.finished() {
            steps += 1;
            assert!(steps < 20_000, "a pull that never ends");
            let index = shuffle.next().unwrap_or(0) % asks.len().max(1);
            let input = match asks.remove(index) {
                Some(action) => match self.answer(&action, own) {
                    Some(input) => input,
                    None => continue,
                },
                None => {
                    let wake = gather.wake_ms().expect("an unfinished pull wakes");
                    assert!(
                        wake > now || !gather.late(now).is_empty() || wake == now,
                        "wakes at {wake}, {now}"
                    );
                    now = wake.max(now);
                    Input::Tick
                }
            };
            now += u64::from(input != Input::Tick);
            asks.extend(gather.step(input, now));
            asks.extend(gather.settle(own, now));
        }
        let answered = gather.answered();
        (gather.position(), now, answered)
    }
}

fn world(all: usize, replicas: Vec<(Manner, Vec<usize>)>) -> World {
    let replicas = replicas
        .into_iter()
        .zip(1u8..)
        .map(|((manner, held), byte)| (key(byte), Replica { manner, held, asked: 0 }));
    World { all: packets(all as u32), replicas: replicas.collect(), moved: 0 }
}

#[test]
fn equal_replicas_move_each_packet_once_and_the_next_pull_moves_news_alone() {
    let mut world = world(20, vec![(Manner::Honest, (0..19).collect()); 8]);
    let mut own = Seen::default();
    let (position, _, answered) = world.pull(&[], &mut own, &mut std::iter::empty());
    assert_eq!((world.moved, own.len(), answered, position.len()), (19, 19, 8, 8));
    world.replicas.values_mut().for_each(|replica| replica.held.push(19));
    let (next, _, _) = world.pull(&position, &mut own, &mut std::iter::empty());
    assert_eq!((world.moved, own.len()), (20, 20));
    assert!(next.iter().all(|cursor| cursor.sequence == 20));
}

#[test]
fn the_difference_is_fetched_from_a_replica_that_has_more() {
    let mut world =
        world(30, vec![(Manner::Honest, (0..20).collect()), (Manner::Honest, (0..30).rev().collect())]);
    let mut own = Seen::default();
    let (position, _, _) = world.pull(&[], &mut own, &mut std::iter::empty());
    assert_eq!((world.moved, own.len()), (30, 30));
    assert_eq!(position.iter().map(|c| c.sequence).collect::<Vec<_>>(), [20, 30]);
}

#[test]
fn a_replica_that_dies_between_two_pages_is_replaced_without_a_second_copy() {
    let held: Vec<usize> = (0..30).collect();
    let replicas =
        vec![(Manner::Dies(4), held.clone()), (Manner::Honest, held.clone()), (Manner::Honest, held)];
    let mut world = world(30, replicas);
    let mut own = Seen::default();
    let (_, time, answered) = world.pull(&[], &mut own, &mut std::iter::empty());
    assert_eq!((world.moved, own.len(), answered), (30, 30, 2));
    assert!(time < STALL_MS + PATIENCE_MS + 100, "{time} ms");
}

#[test]
fn a_silent_first_replica_costs_a_stall_and_others_patience_once() {
    let held: Vec<usize> = (0..5).collect();
    for silent in 1..=3u8 {
        let manner = |byte| if byte == silent { Manner::Silent } else { Manner::Honest };
        let mut world = world(5, (1..=3).map(|byte| (manner(byte), held.clone())).collect());
        let mut own = Seen::default();
        let (position, time, answered) = world.pull(&[], &mut own, &mut std::iter::empty());
        assert_eq!((own.len(), answered, position.len()), (5, 2, 2));
        assert!(time < STALL_MS + PATIENCE_MS + 50, "{time} ms");
    }
    let mut world = world(5, vec![(Manner::Silent, vec![]); 2]);
    let (position, time, answered) = world.pull(&[], &mut Seen::default(), &mut std::iter::empty());
    assert_eq!((position.len(), answered), (0, 0));
    assert!(time <= PATIENCE_FIRST_MS + STALL_MS * 3, "{time} ms");
}

#[test]
fn an_expired_cursor_costs_only_what_is_missing() {
    let mut world = world(12, vec![(Manner::Honest, (0..10).collect())]);
    let mut own = Seen::default();
    let (position, _, _) = world.pull(&[], &mut own, &mut std::iter::empty());
    let mut gather = Gather::new(&[key(1)], &position, 0);
    gather.start();
    world.replicas.get_mut(&key(1)).unwrap().held = (2..12).collect();
    let mut asks: VecDeque<Action> = gather.step(Input::Expired { replica: key(1) }, 0).into();
    assert_eq!(asks, [Action::Stat { replica: key(1) }]);
    while let Some(action) = asks.pop_front() {
        let input = world.answer(&action, &mut own).unwrap();
        asks.extend(gather.step(input, 1));
        asks.extend(gather.settle(&own, 1));
    }
    assert!(gather.finished() && gather.answered() == 1);
    assert_eq!((world.moved, own.len()), (12, 12));

    let mut gather = Gather::new(&[key(1)], &gather.position(), 0);
    gather.step(Input::Expired { replica: key(1) }, 0);
    gather.step(Input::Expired { replica: key(1) }, 0);
    assert!(gather.finished() && gather.answered() == 0, "cursors that expire at once");
}

#[test]
fn a_packet_that_was_superseded_here_is_not_fetched_again() {
    let author = AuthorKey::from_seed([1; 32]);
    let version = |sequence| {
        let mut draft = Draft::new(Kind::Observed, [1; 32], 1);
        (draft.sequence, draft.values[0]) = (sequence, Some((1, 0)));
        author.sign(&draft).expect("a draft by the rules")
    };
    let mut own = Seen::default();
    own.insert(&version(1));
    own.insert(&version(2));
    assert_eq!(own.digest(), [version(2).id()].iter().collect());
    assert!(own.knows(&version(1).id()));
}

fn manner() -> impl Strategy<Value = Manner> {
    prop_oneof![
        4 => Just(Manner::Honest),
        1 => Just(Manner::Silent),
        1 => (0usize..6).prop_map(Manner::Dies),
        1 => Just(Manner::Conceals),
        1 => Just(Manner::Invents),
        1 => Just(Manner::Impersonates),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// Whoever dies, lies or lacks packets, and in whatever order answers come: the pull ends, and the
    /// reader has everything that an honest replica has, now and after more has come.
    #[test]
    fn a_reader_gets_whatever_an_honest_replica_has(
        replicas in prop::collection::vec((manner(), prop::collection::vec(0usize..60, 0..60)), 1..9),
        order in prop::collection::vec(any::<usize>(), 0..400),
        news in prop::collection::vec((0usize..8, 60usize..80), 0..20),
    ) {
        let unique = |held: Vec<usize>| {
            let mut known = BTreeSet::new();
            held.into_iter().filter(|n| known.insert(*n)).collect::<Vec<usize>>()
        };
        let mut world = world(80, replicas.into_iter().map(|(m, held)| (m, unique(held))).collect());
        let mut own = Seen::default();
        let mut order = order.into_iter();
        let (position, _, _) = world.pull(&[], &mut own, &mut order);
        check(&world, &own)?;
        for (replica, number) in news {
            let byte = replica as u8 % world.replicas.len() as u8 + 1;
            let held = &mut world.replicas.get_mut(&key(byte)).unwrap().held;
            if !held.contains(&number) {
                held.push(number);
            }
        }
        world.pull(&position, &mut own, &mut order);
        check(&world, &own)?;
    }
}

fn check(world: &World, own: &Seen) -> Result<(), TestCaseError> {
    for replica in world.replicas.values().filter(|replica| replica.manner == Manner::Honest) {
        for &number in &replica.held {
            prop_assert!(own.knows(&world.all[number].id()), "packet {} is missing", number);
        }
    }
    Ok(())
}
