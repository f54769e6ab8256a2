//! What a model makes, images or sounds, and which flags are for which.
//!
//! The idea: the rest of the program asks here where the two differ, and who asks for what the model at hand does
//! not make is told so before anything else is read.

use std::io::{Seek, Write};

use fast_pixel_cnn::generate::{Generated, Run};
use fast_pixel_cnn::graph::Graph;
use fast_pixel_cnn::media::files::Planned;
use fast_pixel_cnn::media::{images, npy};
use fast_pixel_cnn::{Error, ModelConfig, Result};
use ndarray::ArrayView3;

use crate::args::{Args, Format};
use crate::sounds::Sounds;

/// What a model makes.
pub enum Kind {
    Images,
    Sounds(Sounds),
}

/// The files of a run that are written at its end, of any kind.
pub const FILES: [&str; 6] = [GRID, BYTES, FLOATS, CODES, WAVEFORM, LABELS];

const GRID: &str = "samples.png";
const BYTES: &str = "images.npy";
const FLOATS: &str = "samples.npy";
const CODES: &str = "codes.npy";
const WAVEFORM: &str = "waveform.npy";
const LABELS: &str = "labels.npy";

/// The directories of single images and sounds.
pub const DIRECTORIES: [&str; 2] = ["images", "sounds"];

/// Bytes before the values of an array of up to four axes, at most.
const ARRAY_HEADER: u64 = 192;

/// Bytes of a PNG beside its pixels, at most, and as many again in a thousand.
const PNG_FRAME: u64 = 256;

/// Bytes of a WAV file beside its samples, at most.
const WAV_HEADER: u64 = 128;

impl Kind {
    /// What this model makes. Refuses flags that are for others.
    pub fn of(args: &Args, config: Option<&ModelConfig>) -> Result<Kind> {
        let kind = match config {
            Some(ModelConfig::WaveNet(config)) => Kind::Sounds(Sounds::of(config)),
            _ => Kind::Images,
        };
        let (flags, other) = match kind {
            Kind::Images => (
                [
                    ("--seconds", args.seconds.is_some()),
                    ("--length", args.length.is_some()),
                    ("--prime", args.prime.is_some()),
                    ("--plot", args.plot.is_some()),
                ],
                "sounds, and this model makes images",
            ),
            Kind::Sounds(_) => (
                [
                    ("--image-size", args.image_size.is_some()),
                    ("--complete", args.complete.is_some()),
                    ("--keep-rows", args.keep_rows.is_some()),
                    ("--animate", args.animate.is_some()),
                ],
                "images, and this model makes sounds",
            ),
        };
        if let Some((flag, _)) = flags.iter().find(|(_, given)| *given) {
            return Err(Error::refused(flag, format!("only for {other}")));
        }
        let formats = kind.formats(args);
        let all = kind.all_formats();
        if formats.iter().any(|format| !all.contains(format)) {
            let found =
                formats.iter().find(|format| !all.contains(format)).map_or("", |format| format.name());
            return Err(Error::refused("--format", format!("{found} is only for {other}")));
        }
        if formats.contains(&Format::Wav) && formats.contains(&Format::WavF32) {
            let reason = "wav and wav-f32 have the same names: choose one of them";
            return Err(Error::refused("--format", reason));
        }
        Ok(kind)
    }

    /// Samples of a second, of sounds.
    pub fn rate(&self) -> Option<u32> {
        match self {
            Kind::Images => None,
            Kind::Sounds(sounds) => Some(sounds.rate),
        }
    }

    /// What the user is told that there are some of.
    pub fn plural(&self) -> &'static str {
        match self {
            Kind::Images => "images",
            Kind::Sounds(_) => "sounds",
        }
    }

    fn all_formats(&self) -> [Format; 3] {
        match self {
            Kind::Images => [Format::Png, Format::Npy, Format::Images],
            Kind::Sounds(_) => [Format::Wav, Format::Npy, Format::WavF32],
        }
    }

    /// What is written.
    pub fn formats<'a>(&self, args: &'a Args) -> &'a [Format] {
        args.format.as_deref().unwrap_or(match self {
            Kind::Images => &[Format::Png, Format::Npy],
            Kind::Sounds(_) => &[Format::Wav, Format::Npy],
        })
    }

    /// Whether what is made is needed at the end.
    pub fn keeps(&self, args: &Args) -> bool {
        let at_the_end = |format: &Format| matches!(format, Format::Png | Format::Npy);
        args.animate.is_some() || args.plot.is_some() || self.formats(args).iter().any(at_the_end)
    }

    /// The format, if it is one of those asked for, whose files are one for each image or sound.
    pub fn singles(&self, args: &Args) -> Option<Format> {
        let single = |format: &&Format| matches!(format, Format::Images | Format::Wav | Format::WavF32);
        self.formats(args).iter().find(single).copied()
    }

    /// The format of single images or sounds, whether they are asked for or not.
    pub fn single_format(&self, args: &Args) -> Format {
        self.singles(args).unwrap_or(match self {
            Kind::Images => Format::Images,
            Kind::Sounds(_) => Format::Wav,
        })
    }

    /// The directory of single images or sounds.
    pub fn directory(&self) -> &'static str {
        DIRECTORIES[usize::from(matches!(self, Kind::Sounds(_)))]
    }

    /// The name of one of them, by its index.
    pub fn name(&self, index: u64) -> String {
        let end = match self {
            Kind::Images => "png",
            Kind::Sounds(_) => "wav",
        };
        format!("{index:06}.{end}")
    }

    /// The files that are written at the end.
    pub fn names(&self, args: &Args, labels: bool) -> Vec<&'static str> {
        let asked = |format| self.formats(args).contains(&format);
        let mut names = Vec::new();
        names.extend(asked(Format::Png).then_some(GRID));
        if asked(Format::Npy) {
            names.extend(match self {
                Kind::Images => [BYTES, FLOATS],
                Kind::Sounds(_) => [CODES, WAVEFORM],
            });
            names.extend(labels.then_some(LABELS));
        }
        names
    }

    /// What so many files take: of arrays it is known, of PNG files what they take at most.
    pub fn planned(&self, names: &[&str], singles: Option<Format>, graph: &Graph, run: &Run) -> Vec<Planned> {
        let (count, values) = (run.count as u64, graph.head.values() as u64);
        let png = |(rows, columns): (usize, usize)| {
            let row = (columns as u64).saturating_mul(values).saturating_add(1);
            let bytes = (rows as u64).saturating_mul(row);
            bytes.saturating_add(bytes / 1000).saturating_add(PNG_FRAME)
        };
        let pixels = (run.height as u64).saturating_mul(run.width as u64);
        let numbers = count.saturating_mul(pixels + u64::from(run.start.is_some())).saturating_mul(values);
        let array = |count: u64, size| count.saturating_mul(size).saturating_add(ARRAY_HEADER);
        let wav = |size| (pixels + 1).saturating_mul(size).saturating_add(WAV_HEADER);
        let at_the_end = names.iter().map(|name| match *name {
            GRID => png(run.grid(graph, run.count).size(run.count, run.height, run.width)),
            BYTES => array(numbers, 1),
            LABELS => array(count, 8),
            _ => array(numbers, 4),
        });
        let mut planned: Vec<_> = at_the_end.map(|bytes| Planned { files: 1, bytes }).collect();
        planned.extend(singles.map(|format| Planned {
            files: count,
            bytes: match format {
                Format::Wav => wav(2),
                Format::WavF32 => wav(4),
                _ => png((run.height, run.width)),
            },
        }));
        planned
    }

    /// Writes one image or sound, `[height, width, values]`.
    pub fn write_single(
        &self,
        writer: impl Write + Seek,
        format: Format,
        run: &Run,
        image: ArrayView3<f32>,
    ) -> std::io::Result<()> {
        match self {
            Kind::Images => images::encode_png(writer, image.mapv(images::to_byte).view()),
            Kind::Sounds(sounds) => sounds.write_wav(writer, format, run, image),
        }
    }

    /// Writes one of the files of [`Kind::names`].
    pub fn write(
        &self,
        name: &str,
        writer: impl Write,
        run: &Run,
        generated: &Generated,
    ) -> std::io::Result<()> {
        let images = generated.images.view();
        if name == LABELS {
            let labels = generated.labels.iter().flatten().map(|&label| i64::from(label));
            return npy::write_to(writer, &[generated.count], labels);
        }
        match self {
            Kind::Images => match name {
                GRID => images::encode_grid(writer, &generated.grid, images),
                BYTES => {
                    npy::write_to(writer, images.shape(), images.iter().map(|&value| images::to_byte(value)))
                }
                _ => npy::write_to(writer, images.shape(), images.iter().copied()),
            },
            Kind::Sounds(sounds) => {
                let shape = [generated.count, sounds.samples(run)];
                match name {
                    CODES => npy::write_to(writer, &shape, sounds.codes(run, images)),
                    _ => npy::write_to(writer, &shape, sounds.waveforms(run, images)),
                }
            }
        }
    }
}
