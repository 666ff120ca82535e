//! Reading: everything a [`DiskStore`] answers comes from one snapshot, at one time.

use super::DiskStore;
use super::damage::{Damage, Place};
use super::layout::{Mailbox, index_key, packet_key, parse_expiry_key, parse_packet_key, read_record};
use super::tables::{Table, Tables, is_damage};
use crate::address::Address;
use crate::packet::{Id, Verified};
use crate::store::ledger::Entry;
use crate::store::{Cursor, Digest, Page, StoreError, expired};
use fjall::Snapshot;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::ops::Bound;

/// The store between two commits, at the time last told.
pub struct View<'a> {
    tables: &'a Tables,
    damage: &'a Damage,
    snapshot: Snapshot,
    now_ms: u64,
}

impl DiskStore {
    pub(super) fn view(&self) -> View<'_> {
        let snapshot = self.tables.snapshot();
        View { tables: &self.tables, damage: &self.damage, snapshot, now_ms: self.now() }
    }
}

/// What iterating over records finds.
pub struct Record {
    pub place: Place,
    /// The packet, or what is wrong with the record.
    pub packet: Result<Verified, String>,
}

impl View<'_> {
    /// A mailbox's entry; an empty one where nobody has deposited.
    pub fn mailbox(&self, address: &Address) -> Result<Mailbox, StoreError> {
        let entry = self.tables.read(&self.snapshot, Table::Mailboxes, address, Mailbox::read)?;
        Ok(entry.unwrap_or_default())
    }

    /// All mailboxes after an address, ascending.
    pub fn mailboxes(
        &self,
        after: Option<&Address>,
    ) -> impl Iterator<Item = Result<(Address, Mailbox), StoreError>> {
        let from = after.map_or(Bound::Unbounded, |after| Bound::Excluded(after.to_vec()));
        self.tables.range(&self.snapshot, Table::Mailboxes, (from, Bound::Unbounded)).map(|item| {
            let (key, value) = item.into_inner().map_err(|e| self.tables.error(e))?;
            let parsed = <Address>::try_from(&key[..]).ok().zip(Mailbox::read(&value));
            parsed.ok_or_else(|| self.tables.damaged(Table::Mailboxes))
        })
    }

    /// Records between two places, ascending. Damaged ones are noted.
    ///
    /// # Errors
    /// Of an item: that the database cannot even tell which record it is.
    pub fn records(
        &self,
        from: Bound<Place>,
        to: Bound<Place>,
    ) -> impl Iterator<Item = Result<Record, StoreError>> {
        let key = |(address, sequence): Place| packet_key(&address, sequence).to_vec();
        self.tables.range(&self.snapshot, Table::Packets, (from.map(key), to.map(key))).map(|item| {
            // The key is learnt even where the value cannot be read.
            let place = Cell::new(None);
            let read = item.into_inner_if(|key| {
                place.set(parse_packet_key(key));
                true
            });
            let Some((address, sequence)) = place.get() else {
                return Err(match read {
                    Ok(_) => self.tables.damaged(Table::Packets),
                    Err(e) => self.tables.error(e),
                });
            };
            let packet = match read {
                Ok((key, value)) => read_record(&key, value.as_deref().unwrap_or_default()),
                Err(e) if is_damage(&e) => Err(e.to_string()),
                Err(e) => return Err(self.tables.error(e)),
            };
            if let Err(problem) = &packet {
                self.damage.note(&address, sequence, problem);
            }
            Ok(Record { place: (address, sequence), packet })
        })
    }

    pub fn pull(
        &self,
        start: Cursor,
        address: &Address,
        cursor: Option<Cursor>,
        max: usize,
    ) -> Result<Page, StoreError> {
        let mailbox = self.mailbox(address)?;
        let mut cursor = start.resume(cursor, mailbox.last)?;
        let mut packets = Vec::new();
        let mut more = false;
        let from = Bound::Excluded((*address, cursor.sequence));
        for record in self.records(from, Bound::Included((*address, u64::MAX))) {
            let Record { place: (_, sequence), packet } = record?;
            match packet {
                Ok(packet) if !expired(&packet, self.now_ms) => {
                    more = packets.len() == max;
                    if more {
                        break;
                    }
                    packets.push(packet);
                    cursor.sequence = sequence;
                }
                _ => {}
            }
        }
        // Last, so that what the page found damaged is not in it.
        Ok(Page { packets, cursor, more })
    }

    pub fn fetch(&self, address: &Address, ids: &[Id]) -> Result<Vec<Verified>, StoreError> {
        let mut packets = Vec::new();
        for id in ids {
            let key = index_key(address, id);
            let Some(entry) = self.tables.read(&self.snapshot, Table::Index, &key, Entry::read)? else {
                continue;
            };
            let key = packet_key(address, entry.sequence);
            let packet = match self.tables.get(&self.snapshot, Table::Packets, &key) {
                Ok(value) => read_record(&key, value.as_deref().unwrap_or_default()),
                Err(e) if is_damage(&e) => Err(e.to_string()),
                Err(e) => return Err(self.tables.error(e)),
            };
            match packet {
                Ok(packet) if expired(&packet, self.now_ms) => {}
                Ok(packet) => packets.push(packet),
                Err(problem) => self.damage.note(address, entry.sequence, &problem),
            }
        }
        Ok(packets)
    }

    /// Ids of a mailbox that begin with `prefix`, after `after`, ascending; without the expired and the
    /// damaged.
    pub fn live(
        &self,
        address: &Address,
        after: Option<&Id>,
        prefix: &[u8],
    ) -> impl Iterator<Item = Result<Id, StoreError>> {
        let key = |padding: u8| {
            let mut key = [&address[..], prefix].concat();
            key.resize(64.max(key.len()), padding);
            key
        };
        let from = match after {
            Some(after) => Bound::Excluded(index_key(address, after).to_vec()),
            None => Bound::Included(key(0)),
        };
        let range = self.tables.range(&self.snapshot, Table::Index, (from, Bound::Included(key(0xFF))));
        let damaged = self.damage.of(address);
        range.filter_map(move |item| {
            let (key, value) = match item.into_inner() {
                Ok(entry) => entry,
                Err(e) => return Some(Err(self.tables.error(e))),
            };
            let Some((id, entry)) = key.last_chunk::<32>().zip(Entry::read(&value)) else {
                return Some(Err(self.tables.damaged(Table::Index)));
            };
            let live = !entry.expired(self.now_ms) && !damaged.contains(&entry.sequence);
            live.then_some(Ok(*id))
        })
    }

    /// Keys of table `expiry` whose time has come, ascending.
    pub fn expired(&self) -> impl Iterator<Item = Result<Vec<u8>, StoreError>> {
        let to = match self.now_ms.checked_add(1) {
            Some(end) => Bound::Excluded(end.to_be_bytes().to_vec()),
            None => Bound::Unbounded,
        };
        let range = self.tables.range(&self.snapshot, Table::Expiry, (Bound::Unbounded, to));
        range.map(|item| item.key().map(|key| key.to_vec()).map_err(|e| self.tables.error(e)))
    }

    /// Digest of what is live in a mailbox whose entry is `mailbox`.
    pub fn digest(&self, address: &Address, mailbox: &Mailbox) -> Result<Digest, StoreError> {
        self.live_digest(address, mailbox, &self.expired_by_address()?)
    }

    pub fn digests(&self, after: Option<&Address>, max: usize) -> Result<Vec<(Address, Digest)>, StoreError> {
        let expired = self.expired_by_address()?;
        let all = self.mailboxes(after).map(|item| {
            let (address, mailbox) = item?;
            Ok((address, self.live_digest(&address, &mailbox, &expired)?))
        });
        all.filter(|item| !matches!(item, Ok((_, Digest { count: 0, .. })))).take(max).collect()
    }

    /// The entry sums up all that a mailbox holds: what has expired and is not swept is taken off. A
    /// mailbox with damaged records is summed up anew, since their places do not tell their ids.
    fn live_digest(
        &self,
        address: &Address,
        mailbox: &Mailbox,
        expired: &BTreeMap<Address, Digest>,
    ) -> Result<Digest, StoreError> {
        if self.damage.touches(address) {
            let ids = self.live(address, None, &[]).collect::<Result<Vec<_>, _>>()?;
            return Ok(ids.iter().collect());
        }
        let gone = expired.get(address).copied().unwrap_or_default();
        Ok(mailbox.digest.without(&gone))
    }

    fn expired_by_address(&self) -> Result<BTreeMap<Address, Digest>, StoreError> {
        let mut digests = BTreeMap::<_, Digest>::new();
        for key in self.expired() {
            if let Some((_, address, id)) = parse_expiry_key(&key?) {
                digests.entry(address).or_default().add(&id);
            }
        }
        Ok(digests)
    }
}
