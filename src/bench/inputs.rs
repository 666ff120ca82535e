//! Inputs from `.npy` files, so that other programs and the engine work on the same numbers.
//!
//! `benches/peers.py --gen` writes them: `A_X` (packets x 128 i8), `B_Q`, `B_P`, `B_Y` (questions,
//! packets, outcome means as u16), `C_Q`, `C_P`, `C_Y` and the offsets of each mailbox's questions
//! and packets, `C_qo` and `C_po` (i64, from 0). Only what is needed of the format is read:
//! little-endian arrays of one type, row after row.

use crate::limits::SLOTS;
use ndarray::Array2;
use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Why a file of inputs is not used.
#[derive(Debug, thiserror::Error)]
pub enum InputError {
    #[error("{path}: {source}; `benches/peers.py --gen` writes a folder of inputs")]
    Io { path: PathBuf, source: io::Error },
    /// The file was read and is not what it should be.
    #[error("{path}: {problem}")]
    Content { path: PathBuf, problem: String },
}

/// Longest header that is read, in bytes.
const HEADER_BYTES_MAX: usize = 1 << 16;

/// A folder of inputs.
pub struct Folder<'a>(pub &'a Path);

impl Folder<'_> {
    /// `NAME.npy` as rows of 128 slots in [-127, 127].
    ///
    /// # Errors
    /// The file is not there, or is something else; -128 in a slot.
    pub fn embeddings(&self, name: &str) -> Result<Array2<i8>, InputError> {
        let array = self.array(name, "|i1", 2)?;
        array.require(array.shape[1] == SLOTS, || {
            format!("rows of {} slots; embeddings have {SLOTS}", array.shape[1])
        })?;
        let slots: Vec<i8> = bytemuck::cast_vec(array.bytes.clone());
        if let Some(at) = slots.iter().position(|&slot| slot == i8::MIN) {
            let (row, slot) = (at / SLOTS, at % SLOTS);
            return Err(array.problem(format!("row {row}, slot {slot} is -128; slots are in [-127, 127]")));
        }
        Array2::from_shape_vec((array.shape[0], SLOTS), slots).map_err(|e| array.problem(e.to_string()))
    }

    /// `NAME.npy` as outcome means, one row for each of `packets`.
    ///
    /// # Errors
    /// The file is not there, is something else, or has another number of rows or no columns.
    pub fn outcomes(&self, name: &str, packets: usize) -> Result<Array2<u16>, InputError> {
        let array = self.array(name, "<u2", 2)?;
        let (rows, columns) = (array.shape[0], array.shape[1]);
        array.require(rows == packets, || format!("{rows} rows for {packets} packets"))?;
        array.require((1..=16).contains(&columns), || format!("{columns} outcomes; packets have 1 to 16"))?;
        let values = array.bytes.chunks_exact(2).map(|b| u16::from_le_bytes([b[0], b[1]])).collect();
        Array2::from_shape_vec((rows, columns), values).map_err(|e| array.problem(e.to_string()))
    }

    /// `NAME.npy` as offsets that cut `rows` rows into ranges.
    ///
    /// # Errors
    /// The file is not there, is something else, or does not go from 0 to `rows` without a step back.
    pub fn ranges(&self, name: &str, rows: usize) -> Result<Vec<Range<usize>>, InputError> {
        let array = self.array(name, "<i8", 1)?;
        let mut offsets = Vec::with_capacity(array.shape[0]);
        for bytes in array.bytes.as_chunks::<8>().0 {
            let offset = i64::from_le_bytes(*bytes);
            let before = offsets.last().copied().unwrap_or(0);
            let next = usize::try_from(offset).ok().filter(|&next| next >= before && next <= rows);
            offsets.push(next.ok_or_else(|| {
                array.problem(format!("offset {} is {offset}, not in {before}..={rows}", offsets.len()))
            })?);
        }
        let whole = offsets.len() >= 2 && offsets[0] == 0 && offsets.last() == Some(&rows);
        array.require(whole, || format!("{} offsets do not go from 0 to {rows}", offsets.len()))?;
        Ok(offsets.windows(2).map(|pair| pair[0]..pair[1]).collect())
    }

    fn array(&self, name: &str, descr: &str, dimensions: usize) -> Result<Npy, InputError> {
        let array = Npy::read(&self.0.join(format!("{name}.npy")))?;
        array.require(array.descr == descr, || {
            format!("elements of type `{}`; here they are `{descr}`", array.descr)
        })?;
        array.require(array.shape.len() == dimensions, || {
            format!("{} dimensions; here there are {dimensions}", array.shape.len())
        })?;
        Ok(array)
    }
}

/// A file whose header and length have been checked.
#[derive(Debug)]
struct Npy {
    path: PathBuf,
    descr: String,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl Npy {
    fn read(path: &Path) -> Result<Npy, InputError> {
        let io = |source| InputError::Io { path: path.into(), source };
        let mut array = Npy { path: path.into(), descr: String::new(), shape: vec![], bytes: vec![] };
        let mut file = File::open(path).map_err(io)?;
        let length = file.metadata().map_err(io)?.len();
        let (header, begin) = array.header(&mut file)?;
        array.descr = between(&header, "'descr':", &['\''])
            .ok_or_else(|| array.problem("the header names no element type".into()))?;
        let order = header.split_once("'fortran_order':").map(|(_, rest)| rest.trim_start());
        let rows = order.is_some_and(|order| order.starts_with("False"));
        array.require(rows, || "does not lie row after row (Fortran order)".into())?;
        array.shape = shape(&header).ok_or_else(|| array.problem("the header names no shape".into()))?;
        let size: usize =
            array.descr.trim_start_matches(['|', '<', '>', '=', 'i', 'u', 'f']).parse().unwrap_or(0);
        array.require((1..=8).contains(&size), || format!("elements of type `{}`", array.descr))?;
        let bytes = array.shape.iter().try_fold(size, |product, &n| product.checked_mul(n));
        let held = length.saturating_sub(begin as u64);
        let bytes = bytes.filter(|&bytes| bytes as u64 == held).ok_or_else(|| {
            array.problem(format!(
                "truncated or damaged: {held} bytes of elements where shape {:?} of `{}` was announced",
                array.shape, array.descr
            ))
        })?;
        array.bytes = vec![0; bytes];
        file.read_exact(&mut array.bytes).map_err(io)?;
        Ok(array)
    }

    /// The header's text, and where the elements begin.
    fn header(&self, file: &mut File) -> Result<(String, usize), InputError> {
        let short = |source: io::Error| match source.kind() {
            io::ErrorKind::UnexpectedEof => self.problem("truncated within the header".into()),
            _ => InputError::Io { path: self.path.clone(), source },
        };
        let mut head = [0; 8];
        file.read_exact(&mut head).map_err(short)?;
        self.require(&head[..6] == b"\x93NUMPY", || "is not an .npy file".into())?;
        let version = head[6];
        self.require((1..=3).contains(&version), || format!(".npy format {version}; 1 to 3 can be read"))?;
        let mut count = [0; 4];
        let count_bytes = if version == 1 { 2 } else { 4 };
        file.read_exact(&mut count[..count_bytes]).map_err(short)?;
        let count = u32::from_le_bytes(count) as usize;
        self.require(count <= HEADER_BYTES_MAX, || format!("a header of {count} bytes"))?;
        let mut text = vec![0; count];
        file.read_exact(&mut text).map_err(short)?;
        let text = String::from_utf8(text).map_err(|_| self.problem("the header is not text".into()))?;
        Ok((text, head.len() + count_bytes + count))
    }

    fn require(&self, holds: bool, problem: impl FnOnce() -> String) -> Result<(), InputError> {
        if holds { Ok(()) } else { Err(self.problem(problem())) }
    }
    fn problem(&self, problem: String) -> InputError {
        InputError::Content { path: self.path.clone(), problem }
    }
}

/// What stands between two marks behind `key`.
fn between(text: &str, key: &str, marks: &[char]) -> Option<String> {
    let rest = text.split_once(key)?.1.trim_start().strip_prefix(marks)?;
    Some(rest[..rest.find(marks)?].to_string())
}

/// `'shape': (1000, 128), ` as numbers.
fn shape(header: &str) -> Option<Vec<usize>> {
    let inside = header.split_once("'shape':")?.1.trim_start().strip_prefix('(')?.split_once(')')?.0;
    let numbers = inside.split(',').map(str::trim).filter(|number| !number.is_empty());
    numbers.map(|number| number.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn npy(descr: &str, order: &str, shape: &str, bytes: &[u8]) -> Vec<u8> {
        let text = format!("{{'descr': '{descr}', 'fortran_order': {order}, 'shape': {shape}, }}");
        let mut file = b"\x93NUMPY\x01\x00".to_vec();
        file.extend((text.len() as u16).to_le_bytes());
        file.extend(text.as_bytes());
        file.extend(bytes);
        file
    }

    fn read<T>(file: &[u8], read: impl FnOnce(Folder) -> Result<T, InputError>) -> Result<T, String> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("x.npy"), file).unwrap();
        read(Folder(folder.path())).map_err(|error| {
            let text = error.to_string();
            assert!(text.contains("x.npy"), "{text}");
            text
        })
    }

    #[test]
    fn arrays_are_read() {
        let slots: Vec<u8> = (0..256).map(|i| if i == 128 { 0 } else { i as u8 }).collect();
        let file = npy("|i1", "False", "(2, 128)", &slots);
        let rows = read(&file, |folder| folder.embeddings("x")).unwrap();
        assert_eq!((rows.dim(), rows[[0, 127]], rows[[1, 127]]), ((2, 128), 127, -1));
        let file = npy("<u2", "False", "(1, 2)", &[1, 0, 0, 2]);
        assert_eq!(read(&file, |folder| folder.outcomes("x", 1)).unwrap(), ndarray::array![[1, 512]]);
        let offsets = [0i64, 3, 3, 7].map(i64::to_le_bytes);
        let file = npy("<i8", "False", "(4,)", offsets.as_flattened());
        assert_eq!(read(&file, |folder| folder.ranges("x", 7)).unwrap(), [0..3, 3..3, 3..7]);
        // Another version of the format has a longer count.
        let mut second = npy("|i1", "False", "(2, 128)", &slots);
        second[6] = 2;
        second.splice(10..10, [0, 0]);
        assert_eq!(read(&second, |folder| folder.embeddings("x")).unwrap().nrows(), 2);
    }

    #[test]
    fn what_is_wrong_is_said() {
        let slots = [0u8; 256];
        let good = npy("|i1", "False", "(2, 128)", &slots);
        let mut low = slots;
        low[130] = 0x80;
        let cases: [(Vec<u8>, &str); 13] = [
            (b"no".to_vec(), "truncated within the header"),
            (b"PK\x03\x04 something else".to_vec(), "not an .npy file"),
            (good[..40].to_vec(), "truncated within the header"),
            (good[..good.len() - 1].to_vec(), "truncated or damaged: 255 bytes"),
            ([&good[..], &[0]].concat(), "truncated or damaged: 257 bytes"),
            (npy("<f4", "False", "(2, 128)", &[0; 1024]), "type `<f4`; here they are `|i1`"),
            (npy("|i1", "True", "(2, 128)", &slots), "Fortran order"),
            (npy("|i1", "False", "(256,)", &slots), "1 dimensions"),
            (npy("|i1", "False", "(4, 64)", &slots), "rows of 64 slots"),
            (npy("|i1", "False", "(2, 128)", &low), "row 1, slot 2 is -128"),
            (npy("|i1", "False", "(99999999999999999999, 128)", &slots), "names no shape"),
            (npy("|i1", "False", "(9999999999999999999, 128)", &slots), "truncated or damaged"),
            (npy("|O", "False", "(2, 128)", &slots), "elements of type `|O`"),
        ];
        for (file, expected) in cases {
            let said = read(&file, |folder| folder.embeddings("x")).unwrap_err();
            assert!(said.contains(expected), "`{said}` does not say `{expected}`");
        }
        let ranges = |offsets: &[i64]| {
            let bytes: Vec<u8> = offsets.iter().flat_map(|offset| offset.to_le_bytes()).collect();
            let file = npy("<i8", "False", &format!("({},)", offsets.len()), &bytes);
            read(&file, |folder| folder.ranges("x", 7)).unwrap_err()
        };
        assert!(ranges(&[0, 4, 3, 7]).contains("offset 2 is 3, not in 4..=7"));
        assert!(ranges(&[0, -1, 7]).contains("offset 1 is -1"));
        assert!(ranges(&[0, 8]).contains("offset 1 is 8, not in 0..=7"));
        assert!(ranges(&[0, 6]).contains("do not go from 0 to 7"));
        assert!(ranges(&[0]).contains("do not go from 0 to 7"));
        let three = npy("<u2", "False", "(3, 1)", &[0; 6]);
        assert!(read(&three, |folder| folder.outcomes("x", 4)).unwrap_err().contains("3 rows for 4 packets"));
        let none = npy("<u2", "False", "(3, 0)", &[]);
        assert!(read(&none, |folder| folder.outcomes("x", 3)).unwrap_err().contains("0 outcomes"));
    }
}
