//! Pulls: list what lies beyond the position, fetch and check it.

use super::segment::{self, Name};
use super::{EPOCH, Inner, ObjectMailbox, Position};
use crate::address::Address;
use crate::mailbox::{MailboxError, Pulled};
use crate::packet::{Id, Verified, verify_batch};
use crate::store::{Cursor, expired};
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{Error, ObjectMeta, ObjectStoreExt};
use std::collections::{BTreeMap, HashSet};

/// Segments that are fetched at a time: 64 MiB at most.
const FETCHES: usize = 16;
/// Writers whose segments are listed at a time, each after its cursor. Where there are more writers,
/// one listing of the whole mailbox takes fewer requests.
const LISTINGS: usize = 32;

/// Sequence of the last segment read, by the replica id of the writer.
#[derive(Clone, Default)]
struct Places(BTreeMap<Id, u64>);

impl Places {
    fn insert(&mut self, replica: Id, sequence: u64) {
        self.0.insert(replica, sequence);
    }
    fn last(&self, writer: &Id) -> u64 {
        self.0.get(&replica(writer)).copied().unwrap_or_default()
    }
}

/// The name of a writer in cursors: not its id, because whoever makes a folder chooses that, and could
/// choose a replica of another backend to move its cursor.
fn replica(writer: &Id) -> Id {
    blake3::derive_key("qis 1 segment writer", writer)
}

/// Segments with their size in bytes.
type Listed = BTreeMap<Name, u64>;

impl ObjectMailbox {
    pub(super) async fn read(&self, address: &Address, from: &Position) -> Result<Pulled, MailboxError> {
        let mut places = Places::default();
        for cursor in from.0.iter().filter(|cursor| cursor.epoch == EPOCH) {
            places.insert(cursor.replica, cursor.sequence);
        }
        let mut listed = self.list(address, &places).await?;
        // A folder that is listed while a writer goes on may show its newest segment and not the one
        // before. What was there when the first listing ended is in a second one; what that one shows
        // beyond has the same flaw, and is left to the next pull.
        if has_gap(&listed, &places) {
            let again = self.list(address, &places).await?;
            let last = |name: &Name| Name { sequence: u64::MAX, ..*name };
            let shown = |name: &Name| listed.range(name..=&last(name)).next().is_some();
            let missed: Vec<_> = again.into_iter().filter(|(name, _)| shown(name)).collect();
            listed.extend(missed);
        }
        let fetches: Vec<_> =
            listed.into_iter().map(|(name, bytes)| async move { self.fetch(name, bytes).await }).collect();
        let mut fetched = stream::iter(fetches).buffered(FETCHES);
        let mut pulled = Pulled::default();
        let mut seen = HashSet::new();
        let mut moved = Places::default();
        while let Some((name, segment)) = fetched.try_next().await? {
            let last = places.last(&name.writer);
            let next = name.sequence == last + 1;
            // A name behind a gap may be anybody's invention: only a sound segment moves the cursor.
            if next || segment.is_some() {
                places.insert(replica(&name.writer), name.sequence);
                moved.insert(replica(&name.writer), name.sequence);
            }
            let Some((packets, bytes)) = segment else { continue };
            if !next {
                self.inner.tell(&name.path(&self.inner.place.root), "segments before this one are gone");
            }
            pulled.bytes += bytes;
            pulled.packets.extend(packets.into_iter().filter(|packet| seen.insert(packet.id())));
        }
        drop(fetched);
        let kept = from.0.iter().filter(|c| c.epoch != EPOCH || !moved.0.contains_key(&c.replica));
        let new = moved.0.iter().map(|(&replica, &sequence)| Cursor { replica, epoch: EPOCH, sequence });
        pulled.position = Position(kept.copied().chain(new).collect());
        Ok(pulled)
    }

    /// Segments of a mailbox beyond the places.
    async fn list(&self, address: &Address, places: &Places) -> Result<Listed, MailboxError> {
        let Inner { place, .. } = &*self.inner;
        let mailbox = segment::mailbox(&place.root, address);
        let failed = |error: Error| place.failed(error);
        let top = place.store.list_with_delimiter(Some(&mailbox)).await.map_err(failed)?;
        top.objects.iter().for_each(|object| self.foreign(&object.location));
        let mut writers = Vec::new();
        for folder in &top.common_prefixes {
            match folder.filename().and_then(segment::id) {
                Some(writer) => writers.push(writer),
                None => self.foreign(folder),
            }
        }
        let listings: Vec<BoxStream<'static, Result<ObjectMeta, Error>>> = match writers.len() > LISTINGS {
            true => vec![place.store.list(Some(&mailbox))],
            false => writers
                .iter()
                .map(|writer| {
                    let sequence = places.last(writer);
                    let last = Name { address: *address, writer: *writer, sequence }.path(&place.root);
                    let folder = segment::folder(&place.root, address, writer);
                    place.store.list_with_offset(Some(&folder), &last)
                })
                .collect(),
        };
        let mut objects = stream::iter(listings).flatten_unordered(LISTINGS);
        let mut listed = Listed::new();
        while let Some(object) = objects.try_next().await.map_err(failed)? {
            match Name::parse(&place.root, address, &object.location) {
                Some(name) if name.sequence <= places.last(&name.writer) => {}
                Some(name) => {
                    listed.insert(name, object.size);
                }
                None => self.foreign(&object.location),
            }
        }
        Ok(listed)
    }

    fn foreign(&self, object: &Path) {
        self.inner.tell(object, "is none of ours");
    }

    /// The good packets of a segment and its bytes; `None` where it is no sound segment.
    async fn fetch(
        &self,
        name: Name,
        size: u64,
    ) -> Result<(Name, Option<(Vec<Verified>, u64)>), MailboxError> {
        let Inner { place, .. } = &*self.inner;
        let path = name.path(&place.root);
        let too_long = |size: u64| {
            let problem = format!("has {size} bytes, the longest segment has {}", segment::BYTES_MAX);
            self.inner.tell(&path, &problem);
            Ok((name, None))
        };
        if size > segment::BYTES_MAX {
            return too_long(size);
        }
        let bytes = match place.store.get(&path).await {
            Ok(object) if object.meta.size > segment::BYTES_MAX => return too_long(object.meta.size),
            Ok(object) => object.bytes().await,
            Err(error) => Err(error),
        };
        let bytes = match bytes {
            Ok(bytes) => bytes,
            Err(Error::NotFound { .. }) => {
                self.inner.tell(&path, "was removed while it was read");
                return Ok((name, None));
            }
            Err(error) => return Err(place.failed(error)),
        };
        let length = bytes.len() as u64;
        let checked = self.off_runtime(move |inner| inner.check(&name, &bytes)).await?;
        Ok((name, checked.map(|packets| (packets, length))))
    }
}

/// Whether a sequence is missing before a listed one.
fn has_gap(listed: &Listed, places: &Places) -> bool {
    let mut before: Option<Name> = None;
    listed.keys().any(|name| {
        let last = match before.replace(*name) {
            Some(before) if before.writer == name.writer => before.sequence,
            _ => places.last(&name.writer),
        };
        name.sequence != last + 1
    })
}

impl Inner {
    /// The packets of a segment that are signed, admitted and not expired; `None` if it is damaged.
    fn check(&self, name: &Name, bytes: &[u8]) -> Option<Vec<Verified>> {
        let path = name.path(&self.place.root);
        let parsed = match name.decode(bytes) {
            Ok(parsed) => parsed,
            Err(problem) => {
                self.tell(&path, &problem);
                return None;
            }
        };
        let now_ms = self.clock.now_ms();
        let (mut refused, mut first) = (0, None);
        let mut refuse = |error| {
            refused += 1;
            first.get_or_insert(error);
        };
        let mut well_formed = Vec::with_capacity(parsed.len());
        for packet in parsed {
            packet.map_or_else(&mut refuse, |packet| well_formed.push(packet));
        }
        let mut packets = Vec::with_capacity(well_formed.len());
        for packet in verify_batch(&well_formed) {
            let admitted = packet
                .and_then(|packet| self.admission.check(now_ms, &name.address, &packet).map(|()| packet));
            match admitted {
                Ok(packet) if expired(&packet, now_ms) => {}
                Ok(packet) => packets.push(packet),
                Err(error) => refuse(error),
            }
        }
        if let Some(error) = first {
            self.tell(&path, &format!("{refused} of its packets are refused, the first because {error}"));
        }
        Some(packets)
    }
}
