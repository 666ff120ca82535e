//! The rules of a mailbox over tables: what a deposit and a sweep change.

use super::layout::{
    Entry, MailboxEntry, Version, expiry_key, index_key, latest_key, packet_key, parse_expiry_key,
    parse_retraction_key, read_mailbox, read_record, read_version, retraction_key, write_mailbox,
    write_record, write_version,
};
use super::tables::{Change, Table, is_damage};
use crate::address::Address;
use crate::packet::{Id, Kind, Verified};
use crate::store::{Deposited, StoreError, expired, expiry};

/// Deposits one packet.
pub fn deposit(
    change: &mut Change,
    now_ms: u64,
    address: &Address,
    packet: &Verified,
) -> Result<Deposited, StoreError> {
    let (id, author) = (packet.id(), *packet.author());
    if expired(packet, now_ms) {
        return Ok(Deposited::Obsolete);
    }
    if let Some(entry) = indexed(change, address, &id)? {
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
    match packet.kind() {
        Kind::Observed => {
            let version = (packet.sequence(), id);
            let key = latest_key(address, &author, packet.reference());
            if !supersede(change, address, &key, &version)? {
                return Ok(Deposited::Obsolete);
            }
            if retracted(change, address, &author, &id)? {
                return Ok(Deposited::Obsolete);
            }
        }
        Kind::Synthesis => {
            if retracted(change, address, &author, &id)? {
                return Ok(Deposited::Obsolete);
            }
        }
        Kind::Retraction => retract(change, address, &author, packet.reference())?,
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

/// Notes a version as the latest one heard of; false if a newer one is known. One that is known as the
/// latest and is not there has been retracted, has expired, or was lost: then it may come back.
fn supersede(
    change: &mut Change,
    address: &Address,
    key: &[u8],
    version: &Version,
) -> Result<bool, StoreError> {
    let latest = change.read(Table::Latest, key, read_version)?;
    match latest {
        Some(latest) if latest > *version => return Ok(false),
        Some(latest) if latest == *version => return Ok(true),
        Some((_, older)) => {
            remove(change, address, &older)?;
        }
        None => {}
    }
    change.put(Table::Latest, key, write_version(version))?;
    Ok(true)
}

fn retracted(change: &mut Change, address: &Address, author: &Id, id: &Id) -> Result<bool, StoreError> {
    Ok(change.read(Table::Retractions, &retraction_key(address, author, id), |_| Some(()))?.is_some())
}

/// Notes a retraction, and removes its packet if that is there and of the same author.
fn retract(change: &mut Change, address: &Address, author: &Id, id: &Id) -> Result<(), StoreError> {
    change.put(Table::Retractions, &retraction_key(address, author, id), vec![])?;
    if let Some(target) = indexed(change, address, id)?
        && target.author == *author
        && target.kind != Kind::Retraction
    {
        remove(change, address, id)?;
    }
    Ok(())
}

/// Takes over a marker of table `latest` from a damaged database.
pub fn restore_version(change: &mut Change, key: &[u8], version: &Version) -> Result<(), StoreError> {
    let Some(address) = key.first_chunk::<32>() else { return Ok(()) };
    supersede(change, address, key, version).map(|_| ())
}

/// Takes over a marker of table `retractions` from a damaged database.
pub fn restore_retraction(change: &mut Change, key: &[u8]) -> Result<(), StoreError> {
    let Some((address, author, id)) = parse_retraction_key(key) else { return Ok(()) };
    retract(change, &address, &author, &id)
}

fn indexed(change: &mut Change, address: &Address, id: &Id) -> Result<Option<Entry>, StoreError> {
    change.read(Table::Index, &index_key(address, id), Entry::read)
}

fn mailbox(change: &mut Change, address: &Address) -> Result<MailboxEntry, StoreError> {
    Ok(change.read(Table::Mailboxes, address, read_mailbox)?.unwrap_or_default())
}

fn store(change: &mut Change, address: &Address, id: &Id, packet: &Verified) -> Result<(), StoreError> {
    let (last, mut stat) = mailbox(change, address)?;
    let sequence = last + 1;
    stat.add(packet.kind());
    change.put(Table::Mailboxes, address, write_mailbox(&(sequence, stat)))?;
    let expires_at = expiry(packet).unwrap_or_default();
    let entry = Entry { sequence, kind: packet.kind(), author: *packet.author(), expires_at };
    change.put(Table::Index, &index_key(address, id), entry.write())?;
    let key = packet_key(address, sequence);
    change.put_new(Table::Packets, &key, write_record(&key, packet));
    if expires_at != 0 {
        change.put(Table::Expiry, &expiry_key(expires_at, address, id), vec![])?;
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
    let (last, mut stat) = mailbox(change, address)?;
    stat.remove(entry.kind);
    change.put(Table::Mailboxes, address, write_mailbox(&(last, stat)))?;
    Ok(true)
}
