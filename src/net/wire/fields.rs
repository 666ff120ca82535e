//! The fields that frames are made of.

use super::{Code, Epochs, Refusal};
use crate::limits::{
    MEMBER_ADDRESSES_MAX, MEMBERS_MAX, MULTIADDRESS_BYTES_MAX, PACKET_BYTES, PEER_ID_BYTES_MAX,
    REASON_BYTES_MAX,
};
use crate::node::Contact;
use crate::packet::Id;
use crate::store::{Cursor, Digest};

/// At most [`REASON_BYTES_MAX`] bytes, cut between characters.
pub(super) fn shortened(reason: &str) -> &str {
    &reason[..reason.floor_char_boundary(REASON_BYTES_MAX)]
}

/// A stranger's line as it may be printed: no control characters, which could rewrite a terminal.
pub(super) fn printable(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

pub(super) fn write_cursor(to: &mut Vec<u8>, cursor: &Cursor) {
    to.extend(cursor.replica);
    to.extend(cursor.epoch.to_le_bytes());
    to.extend(cursor.sequence.to_le_bytes());
}

pub(super) fn write_addresses(to: &mut Vec<u8>, addresses: &[Vec<u8>]) {
    let fitting =
        || addresses.iter().filter(|a| a.len() <= MULTIADDRESS_BYTES_MAX).take(MEMBER_ADDRESSES_MAX);
    to.push(fitting().count() as u8);
    for address in fitting() {
        to.push(address.len() as u8);
        to.extend(address);
    }
}

pub(super) fn write_digest(to: &mut Vec<u8>, digest: &Digest) {
    to.extend(digest.count.to_le_bytes());
    digest.sum.iter().for_each(|lane| to.extend(lane.to_le_bytes()));
}

pub(super) fn write_epochs(to: &mut Vec<u8>, epochs: Epochs) {
    to.extend(epochs.nodes.to_le_bytes());
    to.extend(epochs.authors.to_le_bytes());
}

pub(super) fn write_contacts(to: &mut Vec<u8>, contacts: &[Contact]) {
    let fitting: Vec<&Contact> =
        contacts.iter().filter(|c| c.peer.len() <= PEER_ID_BYTES_MAX).take(MEMBERS_MAX).collect();
    to.extend((fitting.len() as u16).to_le_bytes());
    for contact in fitting {
        to.push(contact.peer.len() as u8);
        to.extend(&contact.peer);
        write_addresses(to, &contact.addresses);
    }
}

/// Whether bytes are whole packets.
pub(super) fn whole_packets(bytes: &[u8]) -> Result<(), Refusal> {
    match bytes.len().is_multiple_of(PACKET_BYTES) {
        true => Ok(()),
        false => {
            let reason = format!("{} bytes are not n x {PACKET_BYTES}", bytes.len());
            Err(Refusal::new(Code::Malformed, reason))
        }
    }
}

/// Takes a body apart from its front.
pub(super) struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    pub fn take(&mut self, count: usize) -> Result<&'a [u8], Refusal> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or_else(|| {
            let reason = format!("the body ends {} bytes early", count - self.0.len());
            Refusal::new(Code::Malformed, reason)
        })?;
        self.0 = rest;
        Ok(taken)
    }

    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Refusal> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    pub fn u8(&mut self) -> Result<u8, Refusal> {
        Ok(self.array::<1>()?[0])
    }
    pub fn u16(&mut self) -> Result<u16, Refusal> {
        self.array().map(u16::from_le_bytes)
    }
    pub fn u32(&mut self) -> Result<u32, Refusal> {
        self.array().map(u32::from_le_bytes)
    }
    pub fn u64(&mut self) -> Result<u64, Refusal> {
        self.array().map(u64::from_le_bytes)
    }
    pub fn id(&mut self) -> Result<Id, Refusal> {
        self.array()
    }

    pub fn flag(&mut self) -> Result<bool, Refusal> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(Refusal::new(Code::Malformed, format!("a flag is {other} instead of 0 or 1"))),
        }
    }

    pub fn cursor(&mut self) -> Result<Cursor, Refusal> {
        Ok(Cursor { replica: self.id()?, epoch: self.u64()?, sequence: self.u64()? })
    }

    pub fn digest(&mut self) -> Result<Digest, Refusal> {
        Ok(Digest { count: self.u64()?, sum: [self.u64()?, self.u64()?, self.u64()?, self.u64()?] })
    }

    pub fn epochs(&mut self) -> Result<Epochs, Refusal> {
        Ok(Epochs { nodes: self.u64()?, authors: self.u64()? })
    }

    pub fn contacts(&mut self) -> Result<Vec<Contact>, Refusal> {
        let count = usize::from(self.u16()?);
        if count > MEMBERS_MAX {
            return Err(Refusal::new(Code::Malformed, format!("{count} contacts")));
        }
        let mut contacts = Vec::new();
        for _ in 0..count {
            let length = usize::from(self.u8()?);
            let peer = self.take(length)?.to_vec();
            contacts.push(Contact { peer, addresses: self.addresses()? });
        }
        Ok(contacts)
    }

    pub fn addresses(&mut self) -> Result<Vec<Vec<u8>>, Refusal> {
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

    pub fn end(&self) -> Result<(), Refusal> {
        match self.0.len() {
            0 => Ok(()),
            rest => Err(Refusal::new(Code::Malformed, format!("{rest} bytes too many"))),
        }
    }
}
