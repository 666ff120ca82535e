//! Requests to and from bytes.

use super::fields::{Reader, write_addresses, write_cursor, write_epochs};
use super::{Code, DEPOSIT_BYTES, Frame, Introduction, Refusal, Request, Response};
use crate::limits::{FRAME_PACKETS_MAX, RANGES_FRAME_MAX};
use crate::packet::Id;
use crate::store::Cursor;

impl Request {
    pub fn into_frame(self) -> Frame {
        let mut head = Vec::new();
        match self {
            Request::Hello(introduction) => {
                introduction.write(&mut head);
                Frame::new(1, head, Vec::new())
            }
            Request::Deposit(bytes) => Frame::new(2, head, bytes),
            Request::Pull { address, cursor, max, wait_ms } => {
                head.extend(address);
                head.extend(max.to_le_bytes());
                head.extend(wait_ms.to_le_bytes());
                head.push(u8::from(cursor.is_some()));
                let none = Cursor { replica: [0; 32], epoch: 0, sequence: 0 };
                write_cursor(&mut head, &cursor.unwrap_or(none));
                Frame::new(3, head, Vec::new())
            }
            Request::Stat { address } => Frame::new(4, address.to_vec(), Vec::new()),
            Request::Range { address, prefixes } => {
                head.extend(address);
                head.extend((prefixes.len() as u16).to_le_bytes());
                for prefix in prefixes {
                    head.push(prefix.len() as u8);
                    head.extend(prefix);
                }
                Frame::new(5, head, Vec::new())
            }
            Request::Fetch { address, ids } => Frame::new(6, address.to_vec(), ids.concat()),
            Request::Compare { after } => {
                head.push(u8::from(after.is_some()));
                head.extend(after.unwrap_or_default());
                Frame::new(7, head, Vec::new())
            }
            Request::Lists(epochs) => {
                write_epochs(&mut head, epochs);
                Frame::new(8, head, Vec::new())
            }
            Request::Offer(list) => Frame::new(9, head, list),
            Request::Malformed(refusal) => Response::Error(refusal).into_frame(),
        }
    }

    /// # Errors
    /// What breaks the layout of its kind.
    pub fn read(kind: u8, body: Vec<u8>) -> Result<Request, Refusal> {
        let mut reader = Reader(&body);
        let request = match kind {
            1 => Request::Hello(Introduction::read(&mut reader)?),
            2 => {
                if body.is_empty() || !body.len().is_multiple_of(DEPOSIT_BYTES) {
                    let reason = format!("{} bytes are not n x {DEPOSIT_BYTES}", body.len());
                    return Err(Refusal::new(Code::Malformed, reason));
                }
                return Ok(Request::Deposit(body));
            }
            3 => {
                let (address, max, wait_ms) = (reader.id()?, reader.u32()?, reader.u32()?);
                let has_cursor = reader.flag()?;
                let cursor = reader.cursor()?;
                Request::Pull { address, cursor: has_cursor.then_some(cursor), max, wait_ms }
            }
            4 => Request::Stat { address: reader.id()? },
            5 => {
                let address = reader.id()?;
                let count = usize::from(reader.u16()?);
                if count > RANGES_FRAME_MAX {
                    return Err(Refusal::new(Code::Malformed, format!("{count} ranges")));
                }
                let mut prefixes = Vec::with_capacity(count);
                for _ in 0..count {
                    let length = usize::from(reader.u8()?);
                    if length > 31 {
                        return Err(Refusal::new(Code::Malformed, format!("a prefix of {length} bytes")));
                    }
                    prefixes.push(reader.take(length)?.to_vec());
                }
                Request::Range { address, prefixes }
            }
            6 => {
                let address = reader.id()?;
                let (ids, rest) = reader.0.as_chunks::<32>();
                if ids.is_empty() || ids.len() > FRAME_PACKETS_MAX || !rest.is_empty() {
                    let reason = format!("{} bytes are not 1 to {FRAME_PACKETS_MAX} ids", reader.0.len());
                    return Err(Refusal::new(Code::Malformed, reason));
                }
                let ids: Vec<Id> = ids.to_vec();
                return Ok(Request::Fetch { address, ids });
            }
            7 => {
                let (has_address, address) = (reader.flag()?, reader.id()?);
                Request::Compare { after: has_address.then_some(address) }
            }
            8 => Request::Lists(reader.epochs()?),
            9 => return Ok(Request::Offer(body)),
            _ => return Err(Refusal::new(Code::Malformed, format!("kind {kind} is no request"))),
        };
        reader.end()?;
        Ok(request)
    }
}

impl Introduction {
    pub(super) fn write(&self, to: &mut Vec<u8>) {
        to.push(u8::from(self.storage));
        write_epochs(to, self.epochs);
        write_addresses(to, &self.addresses);
    }

    pub(super) fn read(reader: &mut Reader) -> Result<Introduction, Refusal> {
        Ok(Introduction { storage: reader.flag()?, epochs: reader.epochs()?, addresses: reader.addresses()? })
    }
}
