//! Responses to and from bytes.

use super::fields::{
    Reader, printable, shortened, whole_packets, write_contacts, write_cursor, write_digest,
};
use super::{Code, Frame, Introduction, PAGE_HEAD_BYTES, Refusal, Response};
use crate::limits::{RANGE_IDS_MAX, RANGES_FRAME_MAX};
use crate::node::deposit::Answer;
use crate::store::{Digest, Range, Stat};

impl Response {
    pub fn into_frame(self) -> Frame {
        let mut head = Vec::new();
        match self {
            Response::Members { introduction, members } => {
                introduction.write(&mut head);
                write_contacts(&mut head, &members);
                Frame::new(129, head, Vec::new())
            }
            Response::Deposited { at_ms, signature, answers } => {
                head.extend(at_ms.to_le_bytes());
                head.extend(signature);
                write_answers(&mut head, &answers);
                Frame::new(130, head, Vec::new())
            }
            Response::Page { cursor, more, packets } => {
                write_cursor(&mut head, &cursor);
                head.push(u8::from(more));
                Frame::new(131, head, packets)
            }
            Response::Stat { stat, digest, cursor } => {
                for number in [stat.packets, stat.observed, stat.syntheses, stat.retractions] {
                    head.extend(number.to_le_bytes());
                }
                write_digest(&mut head, &digest);
                write_cursor(&mut head, &cursor);
                Frame::new(132, head, Vec::new())
            }
            Response::Ranges(ranges) => {
                head.extend((ranges.len() as u16).to_le_bytes());
                ranges.iter().for_each(|range| write_range(&mut head, range));
                Frame::new(133, head, Vec::new())
            }
            Response::Packets(packets) => Frame::new(134, head, packets),
            Response::Digests { next, digests } => {
                head.push(u8::from(next.is_some()));
                head.extend(next.unwrap_or_default());
                for (address, digest) in digests {
                    head.extend(address);
                    write_digest(&mut head, &digest);
                }
                Frame::new(135, head, Vec::new())
            }
            Response::Lists(lists) => {
                head.push(lists.len() as u8);
                for list in lists {
                    head.extend((list.len() as u32).to_le_bytes());
                    head.extend(list);
                }
                Frame::new(136, head, Vec::new())
            }
            Response::Noted(news) => Frame::new(137, vec![u8::from(news)], Vec::new()),
            Response::Error(refusal) => {
                head.push(refusal.code as u8);
                head.extend(refusal.retry_after_ms.to_le_bytes());
                let reason = shortened(&refusal.reason);
                head.push(reason.len() as u8);
                head.extend(reason.as_bytes());
                write_contacts(&mut head, &refusal.closer);
                Frame::new(192, head, Vec::new())
            }
        }
    }

    /// # Errors
    /// What breaks the layout of its kind.
    pub fn read(kind: u8, mut body: Vec<u8>) -> Result<Response, Refusal> {
        let mut reader = Reader(&body);
        let response = match kind {
            129 => Response::Members {
                introduction: Introduction::read(&mut reader)?,
                members: reader.contacts()?,
            },
            130 => Response::Deposited {
                at_ms: reader.u64()?,
                signature: reader.array()?,
                answers: read_answers(&mut reader)?,
            },
            131 => {
                let cursor = reader.cursor()?;
                let more = reader.flag()?;
                whole_packets(reader.0)?;
                body.drain(..PAGE_HEAD_BYTES);
                return Ok(Response::Page { cursor, more, packets: body });
            }
            132 => Response::Stat {
                stat: Stat {
                    packets: reader.u64()?,
                    observed: reader.u64()?,
                    syntheses: reader.u64()?,
                    retractions: reader.u64()?,
                },
                digest: reader.digest()?,
                cursor: reader.cursor()?,
            },
            133 => {
                let count = usize::from(reader.u16()?);
                if count > RANGES_FRAME_MAX {
                    return Err(Refusal::new(Code::Malformed, format!("{count} ranges")));
                }
                Response::Ranges((0..count).map(|_| read_range(&mut reader)).collect::<Result<_, _>>()?)
            }
            134 => {
                whole_packets(&body)?;
                return Ok(Response::Packets(body));
            }
            135 => {
                let (has_next, next) = (reader.flag()?, reader.id()?);
                let mut digests = Vec::new();
                while !reader.0.is_empty() {
                    digests.push((reader.id()?, reader.digest()?));
                }
                Response::Digests { next: has_next.then_some(next), digests }
            }
            136 => {
                let count = reader.u8()?;
                let list = |_| {
                    let length = reader.u32()? as usize;
                    Ok(reader.take(length)?.to_vec())
                };
                Response::Lists((0..count).map(list).collect::<Result<_, Refusal>>()?)
            }
            137 => Response::Noted(reader.flag()?),
            192 => {
                let code = reader.u8()?;
                let code = Code::read(code)
                    .ok_or_else(|| Refusal::new(Code::Malformed, format!("unknown error code {code}")))?;
                let retry_after_ms = reader.u32()?;
                let length = usize::from(reader.u8()?);
                let reason = printable(reader.take(length)?);
                Response::Error(Refusal { code, retry_after_ms, reason, closer: reader.contacts()? })
            }
            _ => return Err(Refusal::new(Code::Malformed, format!("kind {kind} is no response"))),
        };
        reader.end()?;
        Ok(response)
    }
}

fn write_answers(to: &mut Vec<u8>, answers: &[Answer]) {
    to.extend((answers.len() as u16).to_le_bytes());
    to.extend(answers.iter().map(|answer| match answer {
        Answer::Stored => 0,
        Answer::Duplicate => 1,
        Answer::Rejected(_) => 2,
    }));
    for answer in answers {
        if let Answer::Rejected(reason) = answer {
            let reason = shortened(reason);
            to.push(reason.len() as u8);
            to.extend(reason.as_bytes());
        }
    }
}

fn read_answers(reader: &mut Reader) -> Result<Vec<Answer>, Refusal> {
    let count = usize::from(reader.u16()?);
    let codes = reader.take(count)?;
    codes
        .iter()
        .map(|code| match code {
            0 => Ok(Answer::Stored),
            1 => Ok(Answer::Duplicate),
            2 => {
                let length = usize::from(reader.u8()?);
                Ok(Answer::Rejected(printable(reader.take(length)?)))
            }
            other => Err(Refusal::new(Code::Malformed, format!("unknown result {other}"))),
        })
        .collect()
}

fn write_range(to: &mut Vec<u8>, range: &Range) {
    match range {
        Range::Ids(ids) => {
            to.push(0);
            to.extend((ids.len() as u16).to_le_bytes());
            ids.iter().for_each(|id| to.extend(id));
        }
        Range::Parts(parts) => {
            to.push(1);
            parts.iter().for_each(|digest| write_digest(to, digest));
        }
    }
}

fn read_range(reader: &mut Reader) -> Result<Range, Refusal> {
    if reader.flag()? {
        let mut parts = Box::new([Digest::default(); 256]);
        for part in parts.iter_mut() {
            *part = reader.digest()?;
        }
        return Ok(Range::Parts(parts));
    }
    let count = usize::from(reader.u16()?);
    if count > RANGE_IDS_MAX {
        return Err(Refusal::new(Code::Malformed, format!("{count} ids in a range")));
    }
    Ok(Range::Ids((0..count).map(|_| reader.id()).collect::<Result<_, _>>()?))
}
