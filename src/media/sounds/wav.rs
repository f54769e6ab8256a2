//! WAV files, read and written.
//!
//! The idea: the crate `hound` decodes samples, but believes lengths and takes an odd chunk for an even one; so the
//! chunks are walked here, compared with the file's own length, and `hound` sees a file of two: the format and the
//! samples.

use std::fmt::Display;
use std::io::{BufReader, Cursor, Read, Seek, SeekFrom, Write};
use std::path::Path;

use hound::{SampleFormat, WavReader, WavSpec, WavWriter};

use super::{RATES, Sound, resample};
use crate::error::{Error, Result};
use crate::media::files::write_atomically;
use crate::media::npy::open_regular;
use crate::memory;

/// Bytes of a format chunk: of the shortest, and of the longest of which anything is used.
const PLAIN: usize = 16;
const EXTENSIBLE: usize = 40;

/// Format tags.
const TAG_PCM: u16 = 1;
const TAG_FLOAT: u16 = 3;
const TAG_EXTENSIBLE: u16 = 0xfffe;

/// Bytes of a file before its samples, at most, of those written here.
const MOST_HEADER: u64 = 128;

/// How samples are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// Whole numbers of 16 bits, the amplitude times 32768; what is beyond them is the nearest.
    Pcm16,
    /// Floats of 32 bits, as they are.
    Float32,
}

/// Reads a WAV file: one channel of PCM of 16, 24 or 32 bits, or of floats of 32 bits. With a rate, in samples per
/// second, it is [`resample`]d to that where it has another. Eight bits are as coarse as a model's own symbols and no
/// mu-law, and how several channels become one is not for a reader to choose: both are refused.
///
/// # Errors
/// [`Error::Io`]; [`Error::Malformed`] for a file that is not a WAV file, is cut short, has no samples, ones that
/// are not finite or a rate outside of [`RATES`]; [`Error::Unsupported`] for one of another kind, or what is no
/// regular file; [`Error::Argument`] as for [`resample`].
pub fn read(path: &Path, rate: Option<u32>) -> Result<Sound> {
    let (file, length) = open_regular(path)?;
    read_from(path, BufReader::with_capacity(1 << 16, file), length, rate)
}

/// [`read`]s the bytes of a whole file. `name` stands in for it in messages.
///
/// # Errors
/// As for [`read`].
pub fn parse(name: &Path, bytes: &[u8], rate: Option<u32>) -> Result<Sound> {
    read_from(name, Cursor::new(bytes), bytes.len() as u64, rate)
}

/// Writes a sound of one channel as a WAV file, atomically.
///
/// # Errors
/// As for [`write_atomically`] and [`encode_wav`].
pub fn write_wav(path: &Path, samples: &[f32], rate: u32, encoding: Encoding) -> Result<()> {
    write_atomically(path, |writer| encode_wav(writer, samples, rate, encoding))
}

/// Writes a sound of one channel as a WAV file to any writer that stands at its start.
///
/// # Errors
/// The writer's; also for a sound that no WAV file can hold: of 4 GiB, or of a rate outside of [`RATES`].
pub fn encode_wav(
    writer: impl Write + Seek,
    samples: &[f32],
    rate: u32,
    encoding: Encoding,
) -> std::io::Result<()> {
    let (bits, sample_format) = match encoding {
        Encoding::Pcm16 => (16, SampleFormat::Int),
        Encoding::Float32 => (32, SampleFormat::Float),
    };
    let bytes = samples.len() as u64 * u64::from(bits / 8);
    if bytes > u64::from(u32::MAX) - MOST_HEADER || !RATES.contains(&rate) {
        let message = format!("no WAV file holds {bytes} bytes of samples, {rate} in a second");
        return Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, message));
    }
    let other = |error| match error {
        hound::Error::IoError(error) => error,
        other => std::io::Error::other(other),
    };
    let spec = WavSpec { channels: 1, sample_rate: rate, bits_per_sample: bits, sample_format };
    let mut wav = WavWriter::new(writer, spec).map_err(other)?;
    for &sample in samples {
        match encoding {
            // What is beyond the ends is cut off by `as`.
            Encoding::Pcm16 => wav.write_sample((sample * 32768.0).round() as i16),
            Encoding::Float32 => wav.write_sample(sample),
        }
        .map_err(other)?;
    }
    wav.finalize().map_err(other)
}

/// Reads the `length` bytes of a whole file.
fn read_from(name: &Path, mut reader: impl Read + Seek, length: u64, rate: Option<u32>) -> Result<Sound> {
    let (format, bytes) = find_samples(name, &mut reader, length)?;
    let format = Format::of(name, &format)?;
    let mut wav = WavReader::new(Cursor::new(format.header(bytes)).chain(reader.take(bytes.into())));
    let wav = wav.as_mut().map_err(|e| bad(name, e))?;
    let WavSpec { sample_rate, bits_per_sample, sample_format, .. } = wav.spec();
    if bits_per_sample != format.bits {
        return Err(other_kind(name, format!("samples of {bits_per_sample} bits in {}", format.bits)));
    }
    let frames = wav.duration();
    if frames == 0 {
        return Err(Error::malformed(name, "samples", "at least one", "none"));
    }
    let mut samples: Vec<f32> = memory::zeros(frames.into()).map_err(|available| {
        let expected = format!("at most {} MiB, which is what memory holds", available >> 20);
        Error::malformed(name, "samples", expected, format!("{frames} samples"))
    })?;
    match sample_format {
        SampleFormat::Int => {
            let whole = f64::from(1_u32 << (bits_per_sample - 1));
            fill(name, wav.samples::<i32>(), &mut samples, |sample| (f64::from(sample) / whole) as f32)
        }
        SampleFormat::Float => fill(name, wav.samples::<f32>(), &mut samples, |sample| sample),
    }?;
    let mut sound = Sound { samples, rate: sample_rate, warnings: Vec::new() };
    if let Some(rate) = rate.filter(|rate| *rate != sample_rate) {
        let what = format!("resampled from {sample_rate} to {rate} samples per second");
        sound.warnings.push(format!("{}: {what}", name.display()));
        sound.samples = resample(&sound.samples, sample_rate, rate)?;
        sound.rate = rate;
    }
    Ok(sound)
}

/// Walks through the chunks to the samples, where it leaves the reader. Returns the format chunk's first bytes and
/// the samples' length in bytes, which the file has.
fn find_samples(name: &Path, reader: &mut (impl Read + Seek), length: u64) -> Result<(Vec<u8>, u32)> {
    let bad = |place: String, expected: &dyn Display, found: &dyn Display| {
        Error::malformed(name, place, expected.to_string(), found.to_string())
    };
    let mut start = Vec::new();
    reader.take(12).read_to_end(&mut start).map_err(Error::io(name, "read"))?;
    if start.len() < 12 || &start[..4] != b"RIFF" || &start[8..] != b"WAVE" {
        let found = match length {
            0 => "an empty file".into(),
            _ => format!("a file that begins with \"{}\"", start.escape_ascii()),
        };
        return Err(bad("start".into(), &"a WAV file", &found));
    }
    let mut format = None;
    let mut left = length - 12;
    loop {
        if left < 8 {
            let missing = if format.is_none() { "a format" } else { "samples" };
            return Err(bad("chunks".into(), &missing, &"the end of the file"));
        }
        let mut head = [0; 8];
        reader.read_exact(&mut head).map_err(Error::io(name, "read"))?;
        let (kind, stated) = head.split_at(4);
        let size = u32::from_le_bytes(stated.try_into().expect("four bytes"));
        left -= 8;
        let place = || format!("chunk \"{}\"", kind.escape_ascii());
        if u64::from(size) > left {
            return Err(bad(place(), &format!("{size} bytes, as it says"), &format!("{left} bytes")));
        }
        // A chunk begins at an even byte.
        let mut skipped = left.min(u64::from(size) + u64::from(size % 2));
        left -= skipped;
        match kind {
            b"data" => {
                let format = format.ok_or_else(|| bad("chunks".into(), &"a format", &"samples before it"))?;
                return Ok((format, size));
            }
            b"fmt " => {
                let mut bytes = vec![0; EXTENSIBLE.min(size as usize)];
                reader.read_exact(&mut bytes).map_err(Error::io(name, "read"))?;
                skipped -= bytes.len() as u64;
                format = Some(bytes);
            }
            _ => {}
        }
        reader.seek(SeekFrom::Current(skipped as i64)).map_err(Error::io(name, "read"))?;
    }
}

/// A format that `hound` decodes.
struct Format {
    /// A format chunk's bytes.
    chunk: Vec<u8>,
    /// Bits that a sample takes.
    bits: u16,
}

impl Format {
    /// Looks at a format chunk's bytes.
    fn of(name: &Path, chunk: &[u8]) -> Result<Format> {
        let bad = |expected: &str, found: String| Error::malformed(name, "format", expected, found);
        let short = || bad("16 bytes, or 40 where it says so", format!("{} bytes", chunk.len()));
        let number = |at: usize| u16::from_le_bytes([chunk[at], chunk[at + 1]]);
        if chunk.len() < PLAIN {
            return Err(short());
        }
        let (channels, block, bits) = (number(2), number(12), number(14));
        let rate = u32::from(number(4)) | u32::from(number(6)) << 16;
        let extensible = number(0) == TAG_EXTENSIBLE;
        if extensible && chunk.len() < EXTENSIBLE {
            return Err(short());
        }
        // The extension names the kind by a GUID, which begins with the tag.
        let tag = if extensible { number(24) } else { number(0) };
        match (tag, bits) {
            (TAG_PCM, 16 | 24 | 32) | (TAG_FLOAT, 32) => {}
            (TAG_PCM, _) => return Err(other_kind(name, format!("PCM of {bits} bits"))),
            (TAG_FLOAT, _) => return Err(other_kind(name, format!("floats of {bits} bits"))),
            _ => return Err(other_kind(name, format!("compressed samples (format {tag:#x})"))),
        }
        if channels == 0 {
            return Err(bad("one channel", "none".into()));
        }
        if channels > 1 {
            return Err(other_kind(name, format!("{channels} channels")));
        }
        if u32::from(block) != u32::from(channels) * u32::from(bits / 8) {
            let expected = format!("a sample of {bits} bits at a time");
            return Err(bad(&expected, format!("{block} bytes")));
        }
        if !RATES.contains(&rate) {
            let expected = format!("from {} to {} samples per second", RATES.start(), RATES.end());
            return Err(bad(&expected, rate.to_string()));
        }
        // Of a plain format what follows says nothing, and is often wrong.
        let used = if extensible { EXTENSIBLE } else { PLAIN };
        Ok(Format { chunk: chunk[..used].to_vec(), bits })
    }

    /// A file's bytes before its samples, `samples` bytes.
    fn header(&self, samples: u32) -> Vec<u8> {
        let size = self.chunk.len() as u32;
        let whole = size.saturating_add(samples).saturating_add(20);
        let [whole, size, samples] = [whole, size, samples].map(u32::to_le_bytes);
        [b"RIFF", &whole[..], b"WAVE", b"fmt ", &size, &self.chunk, b"data", &samples].concat()
    }
}

/// Reads all samples as amplitudes.
fn fill<T>(
    name: &Path,
    values: impl Iterator<Item = hound::Result<T>>,
    samples: &mut [f32],
    amplitude: impl Fn(T) -> f32,
) -> Result<()> {
    for (at, (sample, value)) in samples.iter_mut().zip(values).enumerate() {
        *sample = amplitude(value.map_err(|e| bad(name, &e))?);
        if !sample.is_finite() {
            let place = format!("sample {at}");
            return Err(Error::malformed(name, place, "a finite amplitude", sample.to_string()));
        }
    }
    Ok(())
}

/// What `hound` says of a file.
fn bad(name: &Path, error: &hound::Error) -> Error {
    match error {
        // Its own errors of a file that ends have no number.
        hound::Error::IoError(e) => match e.raw_os_error() {
            Some(number) => Error::io(name, "read")(std::io::Error::from_raw_os_error(number)),
            None => Error::malformed(name, "samples", "as many as it says", e.to_string()),
        },
        hound::Error::FormatError(what) => Error::malformed(name, "format", "a consistent one", *what),
        other => other_kind(name, other.to_string()),
    }
}

fn other_kind(name: &Path, found: impl Display) -> Error {
    Error::Unsupported {
        file: name.into(),
        found: format!("a WAV file of another kind: {found}"),
        hint: "convert it to one channel of PCM of 16, 24 or 32 bits, or of floats of 32".into(),
    }
}
