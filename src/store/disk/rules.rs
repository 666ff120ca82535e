//! The rules of a mailbox over tables: what a deposit and a sweep change.

use super::change::Change;
use super::layout::{
    Mailbox, author_key, expiry_key, index_key, latest_key, packet_key, parse_expiry_key,
    parse_retraction_key, read_count, read_record, read_version, retraction_key, write_record, write_version,
};
use super::tables::{Table, is_damage};
use crate::address::Address;
use crate::packet::{Id, Kind, Verified};
use crate::store::ledger::{Entry, Version};
use crate::store::{Caps, Deposited, StoreError, expired, expiry};

/// Deposits one packet, as [`crate::store::Ledger::deposit`] does.
pub fn deposit(
    change: &mut Change,
    caps: &Caps,
    now_ms: u64,
    address: &Address,
    packet: &Verified,
) -> Result<Deposited, StoreError> {
    let (id, kind) = (packet.id(), packet.kind());
    let (author, reference) = (*packet.author(), *packet.reference());
    if expired(packet, now_ms) {
        return Ok(Deposited::Obsolete);
    }
    let version = (packet.sequence(), id);
    let latest_key = latest_key(address, &author, &reference);
    let heard_of = match kind {
        Kind::Observed => change.read(Table::Latest, &latest_key, read_version)?,
        _ => None,
    };
    // An observed packet that is there is the newest version heard of: most packets need no second look.
    let may_be_there = kind != Kind::Observed || heard_of == Some(version);
    if may_be_there && let Some(entry) = indexed(change, address, &id)? {
        // A duplicate is acknowledged, so the copy on disk must be good; a damaged one is replaced.
        let key = packet_key(address, entry.sequence);
        let good = match change.get(Table::Packets, &key) {
            Ok(record) => record.is_some_and(|record| read_record(&key, record).is_ok()),
            Err(e) if is_damage(&e) => false,
            Err(e) => return Err(change.error(e)),
        };
        if good {
            return Ok(Deposited::Duplicate);
        }
        remove(change, address, &id)?;
        store(change, address, &id, packet)?;
        return Ok(Deposited::Stored);
    }
    let takes_place_of = match kind {
        Kind::Observed => match heard_of {
            Some(newer) if newer > version => return Ok(Deposited::Obsolete),
            older => older.map(|(_, older)| older),
        },
        Kind::Synthesis => None,
        Kind::Retraction => Some(reference),
    };
    let gone = match takes_place_of {
        Some(other) => retractable(change, address, &author, &other)?.then_some(other),
        None => None,
    };
    let retracted = kind != Kind::Retraction && retracted(change, address, &author, &id)?;
    if !retracted && gone.is_none() && is_full(change, caps, address, &author)? {
        return Ok(Deposited::OverQuota);
    }
    match kind {
        Kind::Observed => change.put(Table::Latest, &latest_key, &write_version(&version))?,
        Kind::Synthesis => {}
        Kind::Retraction => mark_retracted(change, address, &retraction_key(address, &author, &reference))?,
    }
    if let Some(gone) = gone {
        remove(change, address, &gone)?;
    }
    if retracted {
        return Ok(Deposited::Obsolete);
    }
    store(change, address, &id, packet)?;
    Ok(Deposited::Stored)
}

/// Removes the packets behind keys of table `expiry`.
pub fn sweep(change: &mut Change, keys: &[Vec<u8>]) -> Result<u64, StoreError> {
    let mut removed = 0;
    for key in keys {
        if let Some((_, address, id)) = parse_expiry_key(key)
            && remove(change, &address, &id)?
        {
            removed += 1;
        }
        change.remove(Table::Expiry, key)?;
    }
    Ok(removed)
}

/// Removes packets of a mailbox that others hold; the markers beside them stay.
pub fn leave(change: &mut Change, address: &Address, ids: &[Id]) -> Result<u64, StoreError> {
    let mut removed = 0;
    for id in ids {
        removed += u64::from(remove(change, address, id)?);
    }
    Ok(removed)
}

fn retracted(change: &mut Change, address: &Address, author: &Id, id: &Id) -> Result<bool, StoreError> {
    if mailbox(change, address)?.retracted == 0 {
        return Ok(false);
    }
    Ok(change.read(Table::Retractions, &retraction_key(address, author, id), |_| Some(()))?.is_some())
}

/// Writes a key of table `retractions`.
fn mark_retracted(change: &mut Change, address: &Address, key: &[u8]) -> Result<(), StoreError> {
    if change.read(Table::Retractions, key, |_| Some(()))?.is_none() {
        change.put_new(Table::Retractions, key, &[]);
        let mut mailbox = mailbox(change, address)?;
        mailbox.retracted += 1;
        change.put(Table::Mailboxes, address, &mailbox.write())?;
    }
    Ok(())
}

/// Whether a packet is there that its author may take back, or replace by a newer version.
fn retractable(change: &mut Change, address: &Address, author: &Id, id: &Id) -> Result<bool, StoreError> {
    let entry = indexed(change, address, id)?;
    Ok(entry.is_some_and(|entry| entry.author == *author && entry.kind != Kind::Retraction))
}

fn is_full(change: &mut Change, caps: &Caps, address: &Address, author: &Id) -> Result<bool, StoreError> {
    if *caps == Caps::default() {
        return Ok(false);
    }
    let of_author = change.read(Table::Authors, &author_key(address, author), read_count)?;
    Ok(caps.are_reached(mailbox(change, address)?.stat.packets, of_author.unwrap_or_default()))
}

/// Takes over a marker of table `latest` from a damaged database.
pub fn restore_version(change: &mut Change, key: &[u8], version: &Version) -> Result<(), StoreError> {
    let Some(address) = key.first_chunk::<32>() else { return Ok(()) };
    match change.read(Table::Latest, key, read_version)? {
        Some(latest) if latest >= *version => return Ok(()),
        Some((_, older)) => drop(remove(change, address, &older)?),
        None => {}
    }
    change.put(Table::Latest, key, &write_version(version))
}

/// Takes over a marker of table `retractions` from a damaged database.
pub fn restore_retraction(change: &mut Change, key: &[u8]) -> Result<(), StoreError> {
    let Some((address, author, id)) = parse_retraction_key(key) else { return Ok(()) };
    mark_retracted(change, &address, key)?;
    if retractable(change, &address, &author, &id)? {
        remove(change, &address, &id)?;
    }
    Ok(())
}

fn indexed(change: &mut Change, address: &Address, id: &Id) -> Result<Option<Entry>, StoreError> {
    change.read(Table::Index, &index_key(address, id), Entry::read)
}

fn mailbox(change: &mut Change, address: &Address) -> Result<Mailbox, StoreError> {
    Ok(change.read(Table::Mailboxes, address, Mailbox::read)?.unwrap_or_default())
}

/// Adds to the number of an author's packets in a mailbox, or takes away; an entry is never 0.
fn count(
    change: &mut Change,
    address: &Address,
    author: &Id,
    add: impl FnOnce(u64) -> u64,
) -> Result<(), StoreError> {
    let key = author_key(address, author);
    match add(change.read(Table::Authors, &key, read_count)?.unwrap_or_default()) {
        0 => change.remove(Table::Authors, &key),
        count => change.put(Table::Authors, &key, &count.to_le_bytes()),
    }
}

/// Puts a packet that is not there into its mailbox.
fn store(change: &mut Change, address: &Address, id: &Id, packet: &Verified) -> Result<(), StoreError> {
    let mut mailbox = mailbox(change, address)?;
    mailbox.last += 1;
    mailbox.stat.add(packet.kind());
    mailbox.digest.add(id);
    change.put(Table::Mailboxes, address, &mailbox.write())?;
    count(change, address, packet.author(), |count| count.saturating_add(1))?;
    let expires_at = expiry(packet).unwrap_or_default();
    let entry = Entry { sequence: mailbox.last, kind: packet.kind(), author: *packet.author(), expires_at };
    change.put_new(Table::Index, &index_key(address, id), &entry.write());
    let key = packet_key(address, mailbox.last);
    change.put_new(Table::Packets, &key, &write_record(&key, packet));
    if expires_at != 0 {
        change.put_new(Table::Expiry, &expiry_key(expires_at, address, id), &[]);
    }
    Ok(())
}

/// Removes a packet if it is there.
fn remove(change: &mut Change, address: &Address, id: &Id) -> Result<bool, StoreError> {
    let Some(entry) = indexed(change, address, id)? else { return Ok(false) };
    change.remove_record(&packet_key(address, entry.sequence));
    change.remove(Table::Index, &index_key(address, id))?;
    if entry.expires_at != 0 {
        change.remove(Table::Expiry, &expiry_key(entry.expires_at, address, id))?;
    }
    let mut mailbox = mailbox(change, address)?;
    mailbox.stat.remove(entry.kind);
    mailbox.digest.remove(id);
    change.put(Table::Mailboxes, address, &mailbox.write())?;
    count(change, address, &entry.author, |count| count.saturating_sub(1))?;
    Ok(true)
}
