//! Sounds: WAV files of every kind are read as what they hold, broken ones refused in a line and with no more memory
//! than they account for; what is written is read back; another rate keeps the sound.

#[path = "support/peak.rs"]
mod peak;
#[path = "support/random.rs"]
mod random;

use std::f64::consts::TAU;
use std::fs;
use std::io::Cursor;
use std::path::Path;

use fast_pixel_cnn::media::npy;
use fast_pixel_cnn::media::sounds::{self, Encoding, Sound};
use fast_pixel_cnn::{Error, Result};
use ndarray::{Array, array};
use peak::peak;
use random::{Random, mutate};

/// A chunk, with the byte that makes it even.
fn chunk(kind: &[u8; 4], bytes: &[u8]) -> Vec<u8> {
    let mut chunk = [kind, &(bytes.len() as u32).to_le_bytes()[..], bytes].concat();
    chunk.resize(chunk.len().next_multiple_of(2), 0);
    chunk
}

fn riff(chunks: &[Vec<u8>]) -> Vec<u8> {
    let chunks = chunks.concat();
    [b"RIFF", &(chunks.len() as u32 + 4).to_le_bytes()[..], b"WAVE", &chunks].concat()
}

fn format(tag: u16, channels: u16, rate: u32, bits: u16) -> Vec<u8> {
    let block = channels * (bits / 8);
    let [tag, channels, block, bits] = [tag, channels, block, bits].map(u16::to_le_bytes);
    let speed = rate.wrapping_mul(u16::from_le_bytes(block).into()).to_le_bytes();
    [&tag[..], &channels, &rate.to_le_bytes(), &speed, &block, &bits].concat()
}

fn extensible(tag: u16, channels: u16, rate: u32, bits: u16, valid: u16) -> Vec<u8> {
    let guid = [&tag.to_le_bytes()[..], b"\x00\x00\x00\x00\x10\x00\x80\x00\x00\xaa\x00\x38\x9b\x71"].concat();
    let size = 22_u16.to_le_bytes();
    [&format(0xfffe, channels, rate, bits)[..], &size, &valid.to_le_bytes(), &[4, 0, 0, 0], &guid].concat()
}

fn wav(format: &[u8], data: &[u8]) -> Vec<u8> {
    riff(&[chunk(b"fmt ", format), chunk(b"data", data)])
}

fn parse(bytes: &[u8]) -> Result<Sound> {
    sounds::parse(Path::new("a.wav"), bytes, None)
}

/// The message with which bytes are refused.
fn refusal(bytes: &[u8]) -> String {
    let message = parse(bytes).map(|sound| sound.samples).unwrap_err().to_string();
    assert!(message.starts_with("a.wav: ") && !message.contains('\n') && message.len() < 400, "{message}");
    message
}

fn floats(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// The same three amplitudes in every kind of file.
fn kinds() -> Vec<Vec<u8>> {
    let whole = |bits: u32| {
        let numbers = [0.5, -1.0, 0.25].map(|x| (x * f64::from(1 << (bits - 1))) as i32);
        numbers.iter().flat_map(|n| n.to_le_bytes().into_iter().take(bits as usize / 8)).collect::<Vec<u8>>()
    };
    let whole32 = [1 << 30, i32::MIN, 1 << 29].iter().flat_map(|n| n.to_le_bytes()).collect::<Vec<u8>>();
    let float = floats(&[0.5, -1.0, 0.25]);
    let with_size = [&format(1, 1, 16_000, 16)[..], &[0, 0]].concat();
    let long = [&format(3, 1, 16_000, 32)[..], &[9; 30]].concat();
    vec![
        wav(&format(1, 1, 16_000, 16), &whole(16)),
        wav(&format(1, 1, 16_000, 24), &whole(24)),
        wav(&format(1, 1, 16_000, 32), &whole32),
        wav(&format(3, 1, 16_000, 32), &float),
        wav(&extensible(1, 1, 16_000, 24, 24), &whole(24)),
        wav(&extensible(3, 1, 16_000, 32, 32), &float),
        wav(&with_size, &whole(16)),
        // What follows a plain format is not looked at.
        wav(&long, &float),
        // Chunks of an odd and an even length around the samples.
        riff(&[
            chunk(b"LIST", b"odd"),
            chunk(b"fmt ", &format(1, 1, 16_000, 24)),
            chunk(b"fact", &[3, 0, 0, 0]),
            chunk(b"data", &whole(24)),
            chunk(b"LIST", b"even"),
        ]),
    ]
}

#[test]
fn every_kind_of_file_holds_the_same_sound() {
    for (kind, bytes) in kinds().iter().enumerate() {
        let sound = parse(bytes).unwrap();
        let expected = Sound { samples: vec![0.5, -1.0, 0.25], rate: 16_000, warnings: Vec::new() };
        assert_eq!(sound, expected, "kind {kind}");
    }
}

#[test]
fn another_rate_is_said() {
    let sound = wav(&format(3, 1, 8000, 32), &floats(&[0.5, 0.25]));
    let sound = sounds::parse(Path::new("a.wav"), &sound, Some(16_000)).unwrap();
    assert_eq!((sound.samples.len(), sound.rate), (4, 16_000));
    assert_eq!(sound.warnings, ["a.wav: resampled from 8000 to 16000 samples per second"]);
}

#[test]
fn what_is_broken_is_refused_in_a_line() {
    let pcm = format(1, 1, 16_000, 16);
    let sound = wav(&pcm, &[1, 2, 3, 4]);
    for (bytes, expected) in [
        (vec![], "start: expected a WAV file, found an empty file"),
        (b"ID3\x04".to_vec(), "expected a WAV file, found a file that begins with \"ID3\\x04\""),
        (sound[..9].to_vec(), "expected a WAV file"),
        (riff(&[]), "chunks: expected a format, found the end of the file"),
        (riff(&[chunk(b"fmt ", &pcm)]), "chunks: expected samples, found the end of the file"),
        (riff(&[chunk(b"data", &[0, 0])]), "chunks: expected a format, found samples before it"),
        (riff(&[chunk(b"fmt ", &pcm[..14])]), "chunks: expected samples"),
        (wav(&pcm[..14], &[0, 0]), "format: expected 16 bytes, or 40 where it says so, found 14 bytes"),
        (wav(&extensible(1, 1, 8000, 16, 16)[..24], &[0, 0]), "found 24 bytes"),
        (wav(&pcm, &[]), "samples: expected at least one, found none"),
        (sound[..46].to_vec(), "chunk \"data\": expected 4 bytes, as it says, found 2 bytes"),
        (wav(&pcm, &[0; 3]), "format: expected a consistent one"),
        (wav(&format(1, 0, 16_000, 16), &[0, 0]), "format: expected one channel, found none"),
        (wav(&format(1, 1, 0, 16), &[0, 0]), "expected from 1000 to 768000 samples per second, found 0"),
        (wav(&format(1, 1, u32::MAX, 16), &[0, 0]), "found 4294967295"),
        (
            wav(&format(2, 1, 16_000, 4), &[0, 0]),
            "another kind: compressed samples (format 0x2); convert it to one channel",
        ),
        (wav(&format(1, 1, 16_000, 12), &[0, 0]), "another kind: PCM of 12 bits"),
        (wav(&format(3, 1, 16_000, 64), &[0; 8]), "another kind: floats of 64 bits"),
        (wav(&extensible(1, 1, 8000, 24, 20), &[0; 3]), "another kind: samples of 20 bits in 24"),
        (
            wav(&format(3, 1, 8000, 32), &floats(&[0.0, f32::NAN])),
            "sample 1: expected a finite amplitude, found NaN",
        ),
        (
            wav(&format(3, 1, 8000, 32), &floats(&[f32::INFINITY])),
            "sample 0: expected a finite amplitude, found inf",
        ),
    ] {
        let message = refusal(&bytes);
        assert!(message.contains(expected), "{message:?} for {expected:?}");
    }
    // Three bytes are no sample of two.
    let mut block = format(1, 1, 16_000, 16);
    block[12] = 3;
    assert!(
        refusal(&wav(&block, &[0; 12])).contains("expected a sample of 16 bits at a time, found 3 bytes")
    );
    let speed = [&pcm[..8], &[0; 4], &pcm[12..]].concat();
    assert!(
        refusal(&wav(&speed, &[0, 0])).contains("expected a consistent one, found inconsistent fmt chunk")
    );
    for (bytes, found) in [
        (wav(&format(1, 1, 16_000, 8), &[192, 0, 160]), "PCM of 8 bits"),
        (wav(&format(1, 2, 16_000, 16), &[0; 12]), "2 channels"),
        (wav(&format(3, 6, 16_000, 32), &[0; 48]), "6 channels"),
    ] {
        assert!(refusal(&bytes).contains(&format!("a WAV file of another kind: {found}")), "{found}");
    }
    let directory = tempfile::tempdir().unwrap();
    assert!(matches!(sounds::read(directory.path(), None), Err(Error::Unsupported { .. })));
    assert!(matches!(sounds::read(&directory.path().join("none.wav"), None), Err(Error::Io { .. })));
}

#[test]
fn lengths_that_lie_take_no_memory() {
    for (at, claimed) in [(4, u32::MAX), (40, u32::MAX), (40, u32::MAX - 1), (40, 1 << 31), (16, u32::MAX)] {
        let mut bytes = wav(&format(1, 1, 16_000, 16), &[7; 56]);
        bytes[at..at + 4].copy_from_slice(&claimed.to_le_bytes());
        let (read, peak) = peak(|| parse(&bytes));
        // The length of the whole is nobody's business.
        assert_eq!(read.is_ok(), at == 4, "{at}");
        assert!(peak < 4096, "{peak} bytes for a claim at {at}");
    }
}

#[test]
fn what_is_written_is_read_back() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("000000.wav");
    let samples = [0.0, 0.5, -0.25, 1.0, -1.0, 3.0, -3.0, 0.3];
    sounds::write_wav(&path, &samples, 16_000, Encoding::Float32).unwrap();
    assert_eq!(
        sounds::read(&path, Some(16_000)).unwrap(),
        Sound { samples: samples.to_vec(), rate: 16_000, warnings: vec![] }
    );
    sounds::write_wav(&path, &samples, 8000, Encoding::Pcm16).unwrap();
    let highest = 32767.0 / 32768.0;
    let expected = [0.0, 0.5, -0.25, highest, -1.0, highest, -1.0, (0.3_f32 * 32768.0).round() / 32768.0];
    assert_eq!(
        sounds::read(&path, None).unwrap(),
        Sound { samples: expected.to_vec(), rate: 8000, warnings: vec![] }
    );
    // The form that every program knows, and nothing beside it.
    let numbers = expected.iter().flat_map(|x| ((x * 32768.0) as i16).to_le_bytes());
    assert_eq!(fs::read(&path).unwrap(), wav(&format(1, 1, 8000, 16), &numbers.collect::<Vec<u8>>()));
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    // A failure leaves the old file.
    let error = sounds::write_wav(&path, &samples, 10, Encoding::Pcm16).unwrap_err().to_string();
    assert!(
        error.contains("000000.wav: cannot write: no WAV file holds 16 bytes of samples, 10 in a second"),
        "{error}"
    );
    assert_eq!(sounds::read(&path, None).unwrap().samples, expected);
    let mut written = Cursor::new(Vec::new());
    sounds::encode_wav(&mut written, &[], 8000, Encoding::Pcm16).unwrap();
    assert!(refusal(written.get_ref()).contains("expected at least one, found none"));
}

/// A sine of `hertz` hertz.
fn sine(hertz: f64, rate: u32, length: usize) -> Vec<f32> {
    let sample = |i: usize| (TAU * hertz * i as f64 / f64::from(rate)).sin() as f32;
    (0..length).map(sample).collect()
}

const RATES: [(u32, u32); 7] = [
    (44_100, 16_000),
    (48_000, 16_000),
    (8000, 16_000),
    (22_050, 8000),
    (16_000, 44_100),
    (44_101, 16_000),
    (768_000, 16_000),
];

#[test]
fn another_rate_keeps_a_sine() {
    for (from, to) in RATES {
        let nyquist = f64::from(from.min(to)) / 2.0;
        let length = from as usize / 4;
        for hertz in [50.0, 440.0, 0.5 * nyquist, 0.9 * nyquist] {
            let found = sounds::resample(&sine(hertz, from, length), from, to).unwrap();
            assert_eq!(found.len() as u64, (length as u64 * u64::from(to)).div_ceil(from.into()));
            let expected = sine(hertz, to, found.len());
            // Near the ends the silence around the sound is heard.
            let inside = 60 * to as usize / from.min(to) as usize + 60..;
            let pairs = expected.iter().zip(&found).rev().skip(inside.start).rev().skip(inside.start);
            let error = pairs.clone().map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(pairs.count() > 1000 && error < 2e-4, "{hertz} Hz from {from} to {to}: {error}");
        }
    }
}

#[test]
fn what_a_lower_rate_cannot_hold_is_gone() {
    for (from, to) in RATES.into_iter().filter(|(from, to)| from > to) {
        for hertz in [0.5, 0.55, 0.8].map(|part| part * f64::from(to)) {
            let found = sounds::resample(&sine(hertz, from, from as usize / 4), from, to).unwrap();
            let inside = &found[130..found.len() - 130];
            let loudest = inside.iter().map(|x| x.abs()).fold(0.0, f32::max);
            assert!(loudest < 1e-4, "{hertz} Hz from {from} to {to}: {loudest}");
        }
    }
}

#[test]
fn another_rate_keeps_a_constant_and_refuses_what_it_cannot_do() {
    let found = sounds::resample(&[0.75; 2000], 11_025, 16_000).unwrap();
    assert!(found[200..2700].iter().all(|x| (x - 0.75).abs() < 1e-6));
    let same = sine(440.0, 16_000, 100);
    assert_eq!(sounds::resample(&same, 16_000, 16_000).unwrap(), same);
    assert_eq!(sounds::resample(&[], 8000, 16_000).unwrap(), [0.0; 0]);
    assert_eq!(sounds::resample(&[1.0], 16_000, 8000).unwrap().len(), 1);
    for (from, to) in [(0, 16_000), (16_000, 0), (16_000, 768_001), (999, 16_000)] {
        let error = sounds::resample(&same, from, to).unwrap_err().to_string();
        assert!(error.starts_with("sample rate: expected from 1000 to 768000"), "{error}");
    }
}

#[test]
fn codes_of_four_types_are_read() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("codes.npy");
    let read = || sounds::read_codes(&path, None, 256);
    let codes = array![[0, 255, 7], [1, 2, 3]];
    npy::write(&path, &codes.view()).unwrap();
    assert_eq!(read().unwrap(), codes);
    npy::write(&path, &codes.mapv(i64::from).view()).unwrap();
    assert_eq!(read().unwrap(), codes);
    npy::write(&path, &codes.mapv(|code| code as u16).view()).unwrap();
    assert_eq!(read().unwrap(), codes);
    npy::write(&path, &codes.mapv(|code| code as u8).view()).unwrap();
    assert_eq!(read().unwrap(), codes);
    npy::write(&path, &array![5, 6].view()).unwrap();
    assert_eq!(read().unwrap(), array![[5, 6]]);

    let refused = |expected: &str| {
        let error = read().unwrap_err().to_string();
        assert!(
            error.contains("codes.npy: ") && error.contains(expected) && !error.contains('\n'),
            "{error}"
        );
    };
    npy::write(&path, &array![[0, 1], [2, 256]].view()).unwrap();
    refused("sound 1, code 1: expected a code from 0 to 255, since the model has 256, found 256");
    npy::write(&path, &array![[-1_i64]].view()).unwrap();
    refused("sound 0, code 0: expected a code from 0 to 255, since the model has 256, found -1");
    npy::write(&path, &array![[1_i64 << 32]].view()).unwrap();
    refused("found 4294967296");
    npy::write(&path, &Array::<i32, _>::zeros((2, 0)).view()).unwrap();
    refused("header: expected codes of shape [N, T] or [T], found shape [2, 0]");
    npy::write(&path, &Array::<u8, _>::zeros((1, 2, 3)).view()).unwrap();
    refused("found shape [1, 2, 3]");
    npy::write(&path, &array![[0.0_f32]].view()).unwrap();
    refused("expected codes of type int64, int32, uint16 or uint8, found type '<f4'");
}

/// Reads within bounds of memory: the samples as floats, and room for messages.
fn read_bounded(bytes: &[u8]) -> Result<Sound> {
    let (read, peak) = peak(|| parse(bytes));
    assert!(peak < 4 * bytes.len() + 4096, "{peak} bytes for a file of {}", bytes.len());
    if let Err(error) = &read {
        assert!(!error.to_string().contains('\n'), "{error}");
    }
    read
}

#[test]
fn a_file_cut_short_is_refused_at_every_length() {
    for bytes in kinds().into_iter().take(8) {
        // The last byte may be the one that makes a chunk even.
        let last = bytes.len() - 1;
        (0..last).for_each(|length| assert!(read_bounded(&bytes[..length]).is_err(), "{length} of {last}"));
    }
}

#[test]
fn random_mutations_do_no_harm() {
    let mut random = Random(2702);
    let kinds = kinds();
    let (mut refused, mut read, mut resampled) = (0, 0, 0);
    for round in 0..60_000 {
        let mut bytes = kinds[round % kinds.len()].clone();
        (0..=random.below(4)).for_each(|_| mutate(&mut bytes, &mut random));
        // Half of them are made consistent again, as far as `hound` compares.
        if round % 2 == 0 && &bytes[12..16] == b"fmt " {
            let rate = u32::from_le_bytes(bytes[24..28].try_into().unwrap());
            let block = u16::from_le_bytes([bytes[32], bytes[33]]);
            bytes[28..32].copy_from_slice(&rate.wrapping_mul(block.into()).to_le_bytes());
        }
        bytes.truncate(bytes.len() - random.below(40).saturating_sub(36));
        match read_bounded(&bytes) {
            Err(_) => refused += 1,
            Ok(sound) => {
                read += 1;
                assert!(!sound.samples.is_empty() && sound.samples.iter().all(|x| x.is_finite()));
                assert!(sounds::RATES.contains(&sound.rate));
                // Beside the sounds what weights a resampler keeps.
                let (other, peak) = peak(|| sounds::parse(Path::new("a.wav"), &bytes, Some(16_000)));
                assert!(peak < 80 * bytes.len() + (9 << 20), "{peak}");
                resampled += usize::from(other.unwrap().samples.len() != sound.samples.len());
            }
        }
    }
    assert!(refused > 10_000 && read > 5_000 && resampled > 100, "{refused} {read} {resampled}");
}

#[cfg(feature = "cli")]
mod plot {
    use super::*;
    use fast_pixel_cnn::media::images;
    use fast_pixel_cnn::media::sounds::plot::{self, Labelled};

    /// A tone that rises from 200 Hz to nearly half the rate, and grows louder.
    fn chirp(rate: u32, length: usize) -> Vec<f32> {
        let sample = |i: usize| {
            let (t, whole) = (i as f64 / f64::from(rate), length as f64 / f64::from(rate));
            let hertz = 200.0 + (0.45 * f64::from(rate) - 200.0) * t / whole / 2.0;
            (0.6 * t / whole * (TAU * hertz * t).sin()) as f32
        };
        (0..length).map(sample).collect()
    }

    fn draw(path: &Path, count: usize) -> Vec<f32> {
        let sound = chirp(8000, 4800);
        let labels: Vec<String> = (0..count).map(|i| format!("class {i} <&>")).collect();
        let sounds: Vec<Labelled> =
            labels.iter().map(|label| Labelled { label, samples: &sound[..] }).collect();
        plot::write(path, 8000, &sounds).unwrap();
        sound
    }

    #[test]
    fn a_rising_tone_rises_in_its_picture() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("chirp.PNG");
        draw(&path, 1);
        let picture = images::read(&[&path], None, 3).unwrap();
        let (_, height, width, _) = picture.dim();
        let dark = |y: usize, x: usize| picture[[0, y, x, 0]] < 60;
        // The spectrogram is the lower part of the picture, above the numbers.
        let (top, bottom) = (height - 84 - 128, height - 84);
        let darkest = |x: usize| {
            let rows: Vec<usize> = (top..bottom).filter(|y| dark(*y, x)).collect();
            rows.iter().sum::<usize>() / rows.len().max(1)
        };
        let found: Vec<usize> = (1..7).map(|sixth| darkest(84 + 720 * sixth / 7)).collect();
        assert!(found.windows(2).all(|pair| pair[0] > pair[1] + 6), "{found:?} of {width}x{height}");
    }

    #[test]
    fn an_svg_has_words_as_words_and_spectrograms_as_pictures() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("chirp.svg");
        draw(&path, 12);
        let svg = fs::read_to_string(&path).unwrap();
        assert!(svg.ends_with("</svg>\n") && svg.matches("</svg>").count() == 1);
        assert_eq!(svg.matches("<image ").count(), 12);
        for words in [
            "class 11 &lt;&amp;&gt;",
            "4 kHz",
            "0.6",
            "seconds",
            "waveforms to 0.60, loudness from -70 dB to 0",
        ] {
            assert!(svg.contains(words), "{words}");
        }
    }

    #[test]
    fn what_cannot_be_drawn_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let error = plot::check_name(&at("a.gif")).unwrap_err().to_string();
        assert!(error.contains("a.gif") && error.contains("ends in .svg or .png"), "{error}");
        let one = Labelled { label: "a", samples: &[0.0] };
        let none = Labelled { label: "b", samples: &[] };
        for sounds in [&[][..], &[one, none], &[one; plot::MOST + 1]] {
            assert!(matches!(plot::write(&at("a.png"), 8000, sounds), Err(Error::Argument { .. })));
        }
        assert!(matches!(plot::write(&at("a.png"), 0, &[one]), Err(Error::Argument { .. })));
        // Silence of one sample and many sounds are no trouble.
        plot::write(&at("a.png"), 8000, &[one; plot::MOST]).unwrap();
        plot::write(&at("b.svg"), 768_000, &[one]).unwrap();
    }
}
