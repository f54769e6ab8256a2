//! STUB: a reader of sound checkpoints only, to be replaced by the one on branch `checkpoint`.
#![allow(missing_docs)]
use crate::error::{Error, Result};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    V1,
    V2,
}
impl std::fmt::Display for Format {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Format::V1 => "V1",
            Format::V2 => "V2",
        })
    }
}
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DType {
    Float32,
    Int64,
    Int32,
    Other(u64),
}
impl std::fmt::Display for DType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            DType::Float32 => f.write_str("float32"),
            DType::Int32 => f.write_str("int32"),
            DType::Int64 => f.write_str("int64"),
            DType::Other(n) => write!(f, "type {n}"),
        }
    }
}
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variable {
    pub name: String,
    pub dtype: DType,
    pub shape: Vec<usize>,
}
pub struct Checkpoint {
    path: PathBuf,
    format: Format,
    variables: Vec<Variable>,
    places: BTreeMap<String, (PathBuf, u64, u64)>,
    crcs: BTreeMap<String, u64>,
}

fn bad(path: &Path) -> Error {
    Error::malformed(path, "table", "a TensorFlow checkpoint", "something else")
}
fn varint(b: &mut &[u8]) -> Option<u64> {
    let (mut v, mut s) = (0u64, 0);
    loop {
        let (&x, rest) = b.split_first()?;
        *b = rest;
        v |= u64::from(x & 127).checked_shl(s)?;
        s += 7;
        if x < 128 {
            return Some(v);
        }
    }
}
enum Field<'a> {
    Int(u64),
    Bytes(&'a [u8]),
}
fn fields(mut b: &[u8]) -> Option<Vec<(u64, Field<'_>)>> {
    let mut out = Vec::new();
    while !b.is_empty() {
        let tag = varint(&mut b)?;
        let field = match tag & 7 {
            0 => Field::Int(varint(&mut b)?),
            2 => {
                let n = varint(&mut b)? as usize;
                let x = b.get(..n)?;
                b = &b[n..];
                Field::Bytes(x)
            }
            5 => {
                let x = b.get(..4)?;
                b = &b[4..];
                Field::Int(u32::from_le_bytes(x.try_into().ok()?).into())
            }
            _ => return None,
        };
        out.push((tag >> 3, field));
    }
    Some(out)
}
fn read_at(path: &Path, at: u64, n: u64) -> Result<Vec<u8>> {
    let mut f = File::open(path).map_err(Error::io(path, "open"))?;
    f.seek(SeekFrom::Start(at)).map_err(Error::io(path, "seek"))?;
    let mut b = Vec::new();
    f.take(n).read_to_end(&mut b).map_err(Error::io(path, "read"))?;
    if b.len() as u64 == n { Ok(b) } else { Err(bad(path)) }
}
/// Entries of a block: key, offset of value in the block, length.
fn entries(block: &[u8]) -> Option<Vec<(Vec<u8>, usize, usize)>> {
    let n = block.len().checked_sub(4)?;
    let restarts = u32::from_le_bytes(block[n..].try_into().ok()?) as usize;
    let body = block.get(..n.checked_sub(restarts.checked_mul(4)?)?)?;
    let (mut out, mut b, mut key) = (Vec::new(), body, Vec::new());
    while !b.is_empty() {
        let (shared, fresh, value) =
            (varint(&mut b)? as usize, varint(&mut b)? as usize, varint(&mut b)? as usize);
        key.truncate(shared);
        key.extend(b.get(..fresh)?);
        let at = body.len() - b.len() + fresh;
        body.get(at..at.checked_add(value)?)?;
        b = &b[fresh + value..];
        out.push((key.clone(), at, value));
    }
    Some(out)
}
/// Blocks of a table: offset, length.
fn blocks(path: &Path) -> Result<Vec<(u64, u64)>> {
    let length = std::fs::metadata(path).map_err(Error::io(path, "open"))?.len();
    let footer = read_at(path, length.checked_sub(48).ok_or_else(|| bad(path))?, 48)?;
    if footer[40..] != 0xdb47_7524_8b80_fb57u64.to_le_bytes() {
        return Err(bad(path));
    }
    let mut f = &footer[..];
    let mut next = || varint(&mut f).ok_or_else(|| bad(path));
    let (_, _, at, n) = (next()?, next()?, next()?, next()?);
    let index = read_at(path, at, n)?;
    let list = entries(&index).ok_or_else(|| bad(path))?;
    list.into_iter()
        .map(|(_, at, n)| {
            let mut v = &index[at..at + n];
            Some((varint(&mut v)?, varint(&mut v)?))
        })
        .collect::<Option<_>>()
        .ok_or_else(|| bad(path))
}
fn dtype(n: u64) -> DType {
    match n {
        1 => DType::Float32,
        3 => DType::Int32,
        9 => DType::Int64,
        n => DType::Other(n),
    }
}
fn shape(b: &[u8]) -> Option<Vec<usize>> {
    let mut out = Vec::new();
    for (tag, f) in fields(b)? {
        if let (2, Field::Bytes(d)) = (tag, f) {
            out.push(
                fields(d)?
                    .iter()
                    .find_map(|f| if let (1, Field::Int(n)) = f { Some(*n as usize) } else { None })
                    .unwrap_or(0),
            );
        }
    }
    Some(out)
}
fn sibling(path: &Path, ending: &str) -> PathBuf {
    let mut s = path.as_os_str().to_os_string();
    s.push(ending);
    s.into()
}

impl Checkpoint {
    pub fn open(path: &Path) -> Result<Self> {
        let prefix = path.to_string_lossy().strip_suffix(".index").map_or(path.to_path_buf(), PathBuf::from);
        let index = sibling(&prefix, ".index");
        let mut c = Checkpoint {
            path: path.into(),
            format: Format::V2,
            variables: vec![],
            places: BTreeMap::new(),
            crcs: BTreeMap::new(),
        };
        if index.exists() {
            c.v2(&prefix, &index)?;
        } else {
            c.format = Format::V1;
            let mut shards = vec![path.to_path_buf()];
            if !path.exists() {
                let n = (1..100)
                    .find(|n| sibling(path, &format!("-00000-of-{n:05}")).exists())
                    .ok_or_else(|| bad(path))?;
                shards = (0..n).map(|k| sibling(path, &format!("-{k:05}-of-{n:05}"))).collect();
            }
            for shard in shards {
                c.v1(&shard)?;
            }
        }
        c.variables.sort_by(|a, b| a.name.cmp(&b.name));
        c.variables.dedup();
        Ok(c)
    }
    fn v2(&mut self, prefix: &Path, index: &Path) -> Result<()> {
        let mut shards = 1;
        for (at, n) in blocks(index)? {
            let block = read_at(index, at, n)?;
            for (key, at, n) in entries(&block).ok_or_else(|| bad(index))? {
                let message = fields(&block[at..at + n]).ok_or_else(|| bad(index))?;
                let int = |t| {
                    message
                        .iter()
                        .find_map(|f| {
                            if let (k, Field::Int(n)) = f
                                && *k == t
                            {
                                Some(*n)
                            } else {
                                None
                            }
                        })
                        .unwrap_or(0)
                };
                if key.is_empty() {
                    shards = int(1);
                    continue;
                }
                let dims =
                    message.iter().find_map(|f| if let (2, Field::Bytes(b)) = f { shape(b) } else { None });
                let name = String::from_utf8_lossy(&key).into_owned();
                self.variables.push(Variable {
                    name: name.clone(),
                    dtype: dtype(int(1)),
                    shape: dims.unwrap_or_default(),
                });
                let file = sibling(prefix, &format!(".data-{:05}-of-{shards:05}", int(3)));
                self.crcs.insert(name.clone(), int(6));
                self.places.insert(name, (file, int(4), int(5)));
            }
        }
        Ok(())
    }
    fn v1(&mut self, path: &Path) -> Result<()> {
        let none = || bad(path);
        for (block_at, n) in blocks(path)? {
            let block = read_at(path, block_at, n)?;
            for (key, at, n) in entries(&block).ok_or_else(none)? {
                for (tag, field) in fields(&block[at..at + n]).ok_or_else(none)? {
                    let Field::Bytes(body) = field else { continue };
                    if key.is_empty() && tag == 1 {
                        for (tag, field) in fields(body).ok_or_else(none)? {
                            let (1, Field::Bytes(meta)) = (tag, field) else {
                                continue;
                            };
                            let mut v =
                                Variable { name: String::new(), dtype: DType::Other(0), shape: vec![] };
                            for (tag, field) in fields(meta).ok_or_else(none)? {
                                match (tag, field) {
                                    (1, Field::Bytes(b)) => v.name = String::from_utf8_lossy(b).into_owned(),
                                    (2, Field::Bytes(b)) => v.shape = shape(b).ok_or_else(none)?,
                                    (3, Field::Int(n)) => v.dtype = dtype(n),
                                    _ => {}
                                }
                            }
                            self.variables.push(v);
                        }
                    } else if tag == 2 {
                        for (tag, field) in fields(body).ok_or_else(none)? {
                            if let (1, Field::Bytes(b)) = (tag, field) {
                                let name = String::from_utf8_lossy(b).into_owned();
                                self.places.insert(name, (path.into(), block_at + at as u64, n as u64));
                            }
                        }
                    }
                }
            }
        }
        Ok(())
    }
    pub fn format(&self) -> Format {
        self.format
    }
    pub fn path(&self) -> &Path {
        &self.path
    }
    pub fn variables(&self) -> &[Variable] {
        &self.variables
    }
    pub fn read_f32(&mut self, name: &str) -> Result<Vec<f32>> {
        let (file, at, n) = self.places.get(name).ok_or_else(|| bad(&self.path))?;
        let bytes = read_at(file, *at, *n)?;
        if let Some(&crc) = self.crcs.get(name) {
            let found = crc32c::crc32c(&bytes).rotate_right(15).wrapping_add(0xa282_ead8);
            if u64::from(found) != crc {
                return Err(bad(file));
            }
        }
        let data = match self.format {
            Format::V2 => &bytes[..],
            Format::V1 => (|| {
                let mut at = &bytes[..];
                for want in [2, 3, 5] {
                    let all = fields(at)?;
                    at = all.into_iter().find_map(|f| {
                        if let (k, Field::Bytes(b)) = f
                            && k == want
                        {
                            Some(b)
                        } else {
                            None
                        }
                    })?;
                }
                Some(at)
            })()
            .ok_or_else(|| bad(file))?,
        };
        Ok(data.chunks_exact(4).map(|c| f32::from_le_bytes([c[0], c[1], c[2], c[3]])).collect())
    }
}
