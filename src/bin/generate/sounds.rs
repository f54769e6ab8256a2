//! Sounds, as far as they are not images: symbols and amplitudes, what comes before a sound, and its picture.
//!
//! The idea: to an engine a sound is an image of one column whose pixel before the first may be given. A sound to go
//! on from is that pixel and given rows behind it, and what is written begins with it.

use std::fmt::Display;
use std::io::{Seek, Write};
use std::path::Path;

use fast_pixel_cnn::generate::{Generated, Run};
use fast_pixel_cnn::heads::{self, mu_law};
use fast_pixel_cnn::media::files;
use fast_pixel_cnn::media::npy::{self, Element};
use fast_pixel_cnn::media::sounds::{self, Encoding, plot};
use fast_pixel_cnn::{Error, Result, WaveNet, cli};
use ndarray::{Array2, Array4, ArrayView3, ArrayView4, Axis, Ix2, s};

use crate::args::{Args, Format};

/// What is to be known of a model of sounds.
pub struct Sounds {
    /// Samples of a second.
    pub rate: u32,
    /// Whether the model reads amplitudes rather than symbols.
    scalar: bool,
    /// The amplitude of each symbol.
    amplitudes: Vec<f32>,
}

/// The most samples of a sound, given ones included: what a WAV file of floats can hold.
const MOST: usize = (u32::MAX as usize - 128) / 4;

/// A uniform number for a sample that is given, which nobody reads.
const UNREAD: f32 = 0.5;

/// The file of a directory of noise.
const NOISE: &str = "u.npy";

/// What a run of sounds begins with, as the library takes it.
pub struct Before {
    /// The sample before the first row, `[1, 1]`.
    pub start: Array2<f32>,
    /// Samples behind it, `[1, rows, 1, 1]`.
    rows: Array4<f32>,
}

impl Before {
    /// Rows of an image that are given.
    pub fn rows(&self) -> usize {
        self.rows.dim().1
    }

    /// An image `[1, height, 1, 1]` that begins with the given rows.
    pub fn image(&self, height: usize) -> Array4<f32> {
        let mut image = Array4::zeros((1, height, 1, 1));
        image.slice_mut(s![.., ..self.rows(), .., ..]).assign(&self.rows);
        image
    }

    /// Noise `[N, T, 1, 1]` of what is made, with numbers for what is given before it.
    pub fn noise(&self, made: Array4<f32>) -> Array4<f32> {
        let (count, length, ..) = made.dim();
        let mut noise = Array4::from_elem((count, self.rows() + length, 1, 1), UNREAD);
        noise.slice_mut(s![.., self.rows().., .., ..]).assign(&made);
        noise
    }
}

impl Sounds {
    /// What a model's configuration says.
    pub fn of(config: &WaveNet) -> Sounds {
        let symbols = config.quantization_channels;
        let amplitudes = (0..symbols).map(|code| mu_law::decode(code, symbols)).collect();
        Sounds { rate: config.sample_rate, scalar: config.scalar_input, amplitudes }
    }

    /// Samples that so many seconds are: at least one.
    pub fn length(&self, seconds: f64) -> usize {
        (seconds * f64::from(self.rate)).round().max(1.0) as usize
    }

    /// Refuses a sound, of so many samples in all, that no file could hold. `flag` and its value say how many.
    pub fn check_length(&self, samples: usize, flag: &str, value: impl Display) -> Result<()> {
        if !(1..=MOST).contains(&samples) {
            let seconds = MOST as f64 / f64::from(self.rate);
            let expected = format!("a sound of 1 to {MOST} samples ({seconds:.0} seconds) in all");
            return Err(Error::argument(flag, expected, value));
        }
        Ok(())
    }

    /// Refuses a model whose sounds no file could hold.
    pub fn check_rate(&self) -> Result<()> {
        if !sounds::RATES.contains(&self.rate) {
            let (least, most) = (sounds::RATES.start(), sounds::RATES.end());
            let expected = format!("{least} to {most} samples per second, as in files of sounds");
            return Err(Error::argument("the model's sample rate", expected, self.rate));
        }
        Ok(())
    }

    /// Reads a sound to go on from, with the model's rate, as the values that the model reads.
    pub fn read_prime(&self, file: &Path) -> Result<Before> {
        let sound = sounds::read(file, Some(self.rate))?;
        sound.warnings.iter().for_each(cli::warn);
        let symbols = self.amplitudes.len();
        let value = |amplitude: &f32| match self.scalar {
            true => mu_law::compress(*amplitude, symbols),
            false => heads::value(mu_law::encode(*amplitude, symbols), symbols),
        };
        let values: Vec<f32> = sound.samples.iter().map(value).collect();
        let (first, rest) = values.split_first().expect("a sound has a sample");
        let rows = Array4::from_shape_vec((1, rest.len(), 1, 1), rest.to_vec());
        Ok(Before {
            start: Array2::from_elem((1, 1), *first),
            rows: rows.expect("as many values as there are rows"),
        })
    }

    /// Reads the uniform numbers of a run, `[N, T, 1, 1]`, from a file `[N, T]`, or from that of a directory.
    pub fn read_noise(&self, path: &Path) -> Result<Array4<f32>> {
        let file = if path.is_dir() { path.join(NOISE) } else { path.into() };
        let numbers = npy::find(&file, None, "u", |found| {
            if found.shape().len() != 2 || found.shape().contains(&0) {
                let shape = format!("{:?}", found.shape());
                return Err(Error::malformed(&found.name, "shape", "[N, T]", shape));
            }
            match found.kind() {
                Some(f64::KIND) => Ok(found.values::<f64>()?.mapv(|u| u as f32)),
                Some(f32::KIND) => found.values::<f32>(),
                _ => {
                    let expected = "numbers of type float32 or float64";
                    Err(Error::malformed(&found.name, "header", expected, found.type_name()))
                }
            }
        })?;
        let numbers = numbers.into_dimensionality::<Ix2>().expect("two axes");
        if let Some((at, u)) = numbers.indexed_iter().find(|(_, u)| !(0.0..=1.0).contains(*u)) {
            let place = format!("element {at:?}");
            return Err(Error::malformed(&file, place, "a number from 0 to 1", u.to_string()));
        }
        Ok(numbers.insert_axis(Axis(2)).insert_axis(Axis(3)))
    }

    /// Samples of each sound, what it begins with included.
    pub fn samples(&self, run: &Run) -> usize {
        run.height + usize::from(run.start.is_some())
    }

    /// The symbols of sounds `[N, height, 1, 1]`, one sound after the other.
    pub fn codes<'a>(&self, run: &'a Run, images: ArrayView4<'a, f32>) -> impl Iterator<Item = i32> + 'a {
        let symbols = self.amplitudes.len();
        let first = run.start.and_then(|start| start.first().copied());
        let sounds = (0..images.dim().0).map(move |i| images.index_axis_move(Axis(0), i));
        let values = sounds.flat_map(move |image| first.into_iter().chain(image.into_iter().copied()));
        values.map(move |value| heads::symbol(value, symbols) as i32)
    }

    /// Their amplitudes.
    pub fn waveforms<'a>(
        &'a self,
        run: &'a Run,
        images: ArrayView4<'a, f32>,
    ) -> impl Iterator<Item = f32> + 'a {
        self.codes(run, images).map(|code| self.amplitudes[code as usize])
    }

    /// Writes a sound `[height, 1, 1]` as a WAV file.
    pub fn write_wav(
        &self,
        writer: impl Write + Seek,
        format: Format,
        run: &Run,
        image: ArrayView3<f32>,
    ) -> std::io::Result<()> {
        let encoding = if format == Format::WavF32 { Encoding::Float32 } else { Encoding::Pcm16 };
        let samples: Vec<f32> = self.waveforms(run, image.insert_axis(Axis(0))).collect();
        sounds::encode_wav(writer, &samples, self.rate, encoding)
    }

    /// Refuses, before hours of work, a picture that could not be drawn after them.
    pub fn check_plot(&self, args: &Args, run: &Run) -> Result<()> {
        let Some(file) = &args.plot else { return Ok(()) };
        plot::check_name(file)?;
        if run.count > plot::MOST {
            let reason = format!("a picture shows {} sounds at most, not {}", plot::MOST, run.count);
            return Err(Error::refused("--plot", reason));
        }
        files::check_writable(file)
    }

    /// Draws the sounds that were made.
    pub fn plot(&self, file: &Path, run: &Run, generated: &Generated) -> Result<()> {
        let waveforms: Vec<f32> = self.waveforms(run, generated.images.view()).collect();
        let name = |i: usize| match &generated.labels {
            Some(labels) => format!("class {}", labels[i]),
            None => format!("sound {}", run.indices.of(i)),
        };
        let names: Vec<String> = (0..generated.count).map(name).collect();
        let labelled: Vec<_> = waveforms
            .chunks_exact(self.samples(run))
            .zip(&names)
            .map(|(samples, label)| plot::Labelled { label, samples })
            .collect();
        plot::write(file, self.rate, &labelled)
    }
}
