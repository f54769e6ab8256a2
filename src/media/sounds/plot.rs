//! Sounds as a picture: each one's waveform, and below it its spectrogram.
//!
//! The idea: all sounds are drawn to one scale, of time, amplitude and loudness, so that they can be compared by
//! eye. Lines and letters are drawn once for either kind of file; of an SVG the spectrograms are pictures in it.

use std::io::Write;
use std::path::Path;

use ndarray::{Array2, Array3, s};
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::RATES;
use super::fourier::{WINDOW, spectrogram};
use super::raster::Raster;
use crate::error::{Error, Result};
use crate::media::figure::{INK, MEASURED_FILL, STRONGER, letters};
use crate::media::files::write_atomically;
use crate::media::images::{encode_png, write_png};

/// The most sounds in a picture.
pub const MOST: usize = 50;

/// Sounds beside each other, at most, and the width of each where there are so many.
const COLUMNS: usize = 5;
const WIDTHS: [i32; COLUMNS] = [720, 400, 300, 240, 240];
/// Heights of a sound's label, waveform and spectrogram, the latter a power of two.
const LABEL: i32 = 26;
const WAVE: i32 = 56;
const SPECTRUM: i32 = 128;
/// Between waveform and spectrogram, between sounds beside each other, and below each other.
const GAPS: [i32; 3] = [4, 40, 12];
/// Around all of them: for the axes' numbers on the left and below, where there is a line of words too.
const LEFT: i32 = 84;
const RIGHT: i32 = 28;
const TOP: i32 = 6;
const BELOW: i32 = 84;

/// How far below the loudest a frequency is as good as silent, in dB.
const RANGE: f64 = 70.0;
/// Between shades, in dB: as fine as eyes tell, for a picture of fewer bytes.
const STEP: f64 = 2.0;
/// From silent to loudest.
const SHADES: [[u8; 3]; 5] = [[255; 3], [190, 208, 230], [96, 138, 188], [32, 80, 142], [8, 18, 50]];

/// A sound with its name.
#[derive(Clone, Copy, Debug)]
pub struct Labelled<'a> {
    /// A few words: "class 3".
    pub label: &'a str,
    /// Amplitudes, finite.
    pub samples: &'a [f32],
}

/// The kinds of picture.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Svg,
    Png,
}

/// Refuses a picture's path before anything is made for it: a name of another kind than `.svg` and `.png`.
///
/// # Errors
/// [`Error::Unsupported`].
pub fn check_name(path: &Path) -> Result<()> {
    kind(path).map(drop)
}

fn kind(path: &Path) -> Result<Kind> {
    match path.extension().map(|end| end.to_string_lossy().to_lowercase()).as_deref() {
        Some("svg") => Ok(Kind::Svg),
        Some("png") => Ok(Kind::Png),
        _ => Err(Error::Unsupported {
            file: path.into(),
            found: "a picture of another kind than SVG and PNG".into(),
            hint: "choose a name that ends in .svg or .png".into(),
        }),
    }
}

/// Draws sounds of one rate, in samples per second, atomically: 1 to [`MOST`], each of a sample or more.
///
/// # Errors
/// [`Error::Unsupported`] as for [`check_name`]; [`Error::Argument`] for no sound, an empty one, too many, or a rate
/// outside of [`RATES`]; [`Error::Io`].
pub fn write(path: &Path, rate: u32, sounds: &[Labelled]) -> Result<()> {
    let kind = kind(path)?;
    if !RATES.contains(&rate) {
        return Err(Error::argument("sample rate", format!("{RATES:?}"), rate));
    }
    if !(1..=MOST).contains(&sounds.len()) || sounds.iter().any(|sound| sound.samples.is_empty()) {
        let shortest = sounds.iter().map(|sound| sound.samples.len()).min().unwrap_or(0);
        let found = format!("{}, the shortest of {shortest} samples", sounds.len());
        return Err(Error::argument("sounds", format!("1 to {MOST}, of a sample or more"), found));
    }
    let picture = Picture::new(rate, sounds);
    let undrawn = |message: String| Error::io(path, "draw")(std::io::Error::other(message));
    if kind == Kind::Png {
        let pixels = picture.png().map_err(|e| undrawn(e.to_string()))?;
        return write_png(path, pixels.view());
    }
    let svg = picture.svg().map_err(|e| undrawn(e.to_string()))?;
    write_atomically(path, |file| file.write_all(svg.as_bytes()))
}

/// What is drawn, and where.
struct Picture<'a> {
    sounds: &'a [Labelled<'a>],
    rate: u32,
    columns: usize,
    /// Pixels of the longest sound.
    width: i32,
    /// Samples of the longest sound.
    longest: usize,
    /// The greatest amplitude, or 1 where all are silent.
    peak: f32,
    /// Each sound's spectrogram, `[SPECTRUM, width, 3]`, as wide as the sound is long.
    spectrograms: Vec<Array3<u8>>,
}

impl<'a> Picture<'a> {
    fn new(rate: u32, sounds: &'a [Labelled<'a>]) -> Picture<'a> {
        let columns = sounds.len().div_ceil(sounds.len().div_ceil(COLUMNS));
        let width = WIDTHS[columns - 1];
        let longest = sounds.iter().map(|sound| sound.samples.len()).max().unwrap_or(1);
        let amplitudes = sounds.iter().flat_map(|sound| sound.samples);
        let peak = amplitudes.fold(0.0, |most: f32, amplitude| most.max(amplitude.abs()));
        let samples = longest as f64 / f64::from(width);
        let powers: Vec<Array2<f64>> = sounds
            .iter()
            .map(|sound| {
                let columns = (sound.samples.len() as f64 / samples).ceil() as usize;
                spectrogram(
                    sound.samples,
                    rate,
                    [SPECTRUM as usize, columns.clamp(1, width as usize)],
                    samples,
                )
            })
            .collect();
        let loudest = powers.iter().flatten().copied().fold(0.0, f64::max);
        let spectrograms = powers.iter().map(|powers| shaded(powers, loudest)).collect();
        let peak = if peak > 0.0 { peak } else { 1.0 };
        Picture { sounds, rate, columns, width, longest, peak, spectrograms }
    }

    /// Width and height.
    fn size(&self) -> (u32, u32) {
        let [_, beside, below] = GAPS;
        let [columns, rows] = [self.columns, self.sounds.len().div_ceil(self.columns)].map(|n| n as i32);
        let width = LEFT + columns * (self.width + beside) - beside + RIGHT;
        let height = TOP + rows * (CELL + below) - below + BELOW;
        (width as u32, height as u32)
    }

    /// The upper left corner of a sound's waveform.
    fn corner(&self, sound: usize) -> (i32, i32) {
        let [_, beside, below] = GAPS;
        let [column, row] = [sound % self.columns, sound / self.columns].map(|n| n as i32);
        (LEFT + column * (self.width + beside), TOP + row * (CELL + below) + LABEL)
    }

    fn png(&self) -> std::result::Result<Array3<u8>, impl std::error::Error + use<>> {
        let (width, height) = self.size();
        let mut pixels = Array3::from_elem((height as usize, width as usize, 3), 255);
        for (sound, spectrogram) in self.spectrograms.iter().enumerate() {
            let (left, top) = self.corner(sound);
            let [left, top] = [left, top + WAVE + GAPS[0]].map(|n| n as usize);
            let (height, width, _) = spectrogram.dim();
            pixels.slice_mut(s![top..top + height, left..left + width, ..]).assign(spectrogram);
        }
        self.draw(&Raster::new(&mut pixels).into_drawing_area()).map(|()| pixels)
    }

    fn svg(&self) -> std::result::Result<String, DrawingAreaErrorKind<std::io::Error>> {
        let mut svg = String::new();
        let root = SVGBackend::with_string(&mut svg, self.size()).into_drawing_area();
        root.fill(&WHITE)?;
        self.draw(&root)?;
        root.present()?;
        drop(root);
        let end = svg.rfind("</svg>").unwrap_or(svg.len());
        let mut whole = svg[..end].to_string();
        for (sound, spectrogram) in self.spectrograms.iter().enumerate() {
            let (left, top) = self.corner(sound);
            let (height, width, _) = spectrogram.dim();
            let mut png = Vec::new();
            encode_png(&mut png, spectrogram.view()).map_err(drawing)?;
            let top = top + WAVE + GAPS[0];
            let place = format!("x=\"{left}\" y=\"{top}\" width=\"{width}\" height=\"{height}\"");
            whole += &format!("<image {place} href=\"data:image/png;base64,{}\"/>\n", base64(&png));
        }
        Ok(whole + &svg[end..])
    }

    /// Everything but the spectrograms.
    fn draw<B: DrawingBackend>(&self, root: &DrawingArea<B, Shift>) -> Drawn<B> {
        for (sound, Labelled { label, samples }) in self.sounds.iter().enumerate() {
            let (left, top) = self.corner(sound);
            let label: String = label.chars().filter(|c| !c.is_control()).collect();
            root.draw_text(&label, &at(HPos::Left, VPos::Bottom, 16), (left, top - 6))?;
            let middle = top + WAVE / 2;
            root.draw(&PathElement::new([(left, middle), (left + self.width, middle)], STRONGER))?;
            root.draw(&PathElement::new(self.waveform(samples, (left, middle)), MEASURED_FILL))?;
            let top = top + WAVE + GAPS[0];
            if sound.is_multiple_of(self.columns) {
                self.frequencies(root, (left, top))?;
            }
            if sound + self.columns >= self.sounds.len() {
                self.times(root, (left, top + SPECTRUM))?;
            }
        }
        let (_, height) = self.size();
        let words = format!(
            "waveforms to {:.2}, loudness from -{RANGE} dB to 0, windows of {:.0} ms",
            self.peak,
            1000.0 * WINDOW
        );
        root.draw_text(&words, &at(HPos::Left, VPos::Bottom, 13), (LEFT, height as i32 - 10))
    }

    /// The line of a waveform: for each column of pixels the greatest and the least of its samples, and of the next
    /// one's first.
    fn waveform(&self, samples: &[f32], (left, middle): (i32, i32)) -> Vec<(i32, i32)> {
        let width = self.longest as f64 / f64::from(self.width);
        let y = |amplitude: f32| {
            middle - (f64::from(amplitude / self.peak) * f64::from(WAVE / 2 - 1)).round() as i32
        };
        let mut line = Vec::new();
        for column in 0..self.width {
            let [first, last] = [column, column + 1].map(|column| (f64::from(column) * width) as usize);
            let inside = samples.get(first..samples.len().min(last + 1)).unwrap_or(&[]);
            if inside.is_empty() {
                break;
            }
            let most = inside.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let least = inside.iter().copied().fold(f32::INFINITY, f32::min);
            line.extend([most, least].map(|amplitude| (left + column, y(amplitude))));
        }
        line
    }

    /// The axis on the left of a spectrogram.
    fn frequencies<B: DrawingBackend>(
        &self,
        root: &DrawingArea<B, Shift>,
        (left, top): (i32, i32),
    ) -> Drawn<B> {
        let whole = f64::from(self.rate) / 2000.0;
        let ticks = ticks(whole, 4);
        for (tick, (kilohertz, words)) in ticks.iter().enumerate() {
            let y = top + SPECTRUM - (kilohertz / whole * f64::from(SPECTRUM)).round() as i32;
            root.draw(&PathElement::new([(left - 8, y), (left - 3, y)], INK))?;
            let unit = if tick + 1 == ticks.len() { " kHz" } else { "" };
            root.draw_text(&format!("{words}{unit}"), &at(HPos::Right, VPos::Center, 13), (left - 12, y))?;
        }
        root.draw(&PathElement::new([(left - 3, top), (left - 3, top + SPECTRUM)], INK))
    }

    /// The axis below a spectrogram.
    fn times<B: DrawingBackend>(&self, root: &DrawingArea<B, Shift>, (left, top): (i32, i32)) -> Drawn<B> {
        let whole = self.longest as f64 / f64::from(self.rate);
        for (seconds, words) in ticks(whole, self.width as usize / 80) {
            let x = left + (seconds / whole * f64::from(self.width)).round() as i32;
            root.draw(&PathElement::new([(x, top + 3), (x, top + 8)], INK))?;
            root.draw_text(&words, &at(HPos::Center, VPos::Top, 13), (x, top + 12))?;
        }
        root.draw_text("seconds", &at(HPos::Center, VPos::Top, 13), (left + self.width / 2, top + 32))?;
        root.draw(&PathElement::new([(left, top + 3), (left + self.width, top + 3)], INK))
    }
}

/// The height of a sound with its label.
const CELL: i32 = LABEL + WAVE + GAPS[0] + SPECTRUM;

type Drawn<B> = std::result::Result<(), DrawingAreaErrorKind<<B as DrawingBackend>::ErrorType>>;

fn drawing(error: std::io::Error) -> DrawingAreaErrorKind<std::io::Error> {
    DrawingAreaErrorKind::BackendError(plotters_backend::DrawingErrorKind::DrawingError(error))
}

fn at(horizontal: HPos, vertical: VPos, size: i32) -> TextStyle<'static> {
    letters(size, INK).pos(Pos::new(horizontal, vertical))
}

/// From 0 to `whole` some round numbers, at most `most` steps between them, each with its words.
fn ticks(whole: f64, most: usize) -> Vec<(f64, String)> {
    let least = whole / most.max(1) as f64;
    let mut power = least.log10().floor() as i32;
    let round = |digit: f64, power: i32| digit * 10_f64.powi(power);
    // Some more than exact, so that the last of 0.2, 0.4, 0.6 is not lost by rounding.
    let digit = [1.0, 2.0, 5.0].into_iter().find(|digit| round(*digit, power) >= least * (1.0 - 1e-9));
    if digit.is_none() {
        power += 1;
    }
    let step = round(digit.unwrap_or(1.0), power);
    let count = (whole / step * (1.0 + 1e-9)) as usize;
    let places = (-power).max(0) as usize;
    let words = |at: f64| if at == 0.0 { "0".into() } else { format!("{at:.places$}") };
    (0..=count).map(|n| n as f64 * step).map(|at| (at, words(at))).collect()
}

/// Powers `[rows, columns]` as a picture `[rows, columns, 3]`, low rows below.
fn shaded(powers: &Array2<f64>, loudest: f64) -> Array3<u8> {
    let (rows, columns) = powers.dim();
    // Where all is silent nothing is loud.
    let loudest = loudest.max(f64::MIN_POSITIVE);
    Array3::from_shape_fn((rows, columns, 3), |(row, column, channel)| {
        let decibels = 10.0 * (powers[[rows - 1 - row, column]] / loudest).log10();
        let above = ((decibels + RANGE) / STEP).round() * STEP;
        let shade = (above / RANGE).clamp(0.0, 1.0) * (SHADES.len() - 1) as f64;
        let lower = (shade as usize).min(SHADES.len() - 2);
        let [from, to] = [lower, lower + 1].map(|at| f64::from(SHADES[at][channel]));
        (from + (to - from) * (shade - lower as f64)).round() as u8
    })
}

/// Bytes as letters, for a picture in an SVG.
fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let bits =
            three.iter().enumerate().fold(0_u32, |bits, (at, byte)| bits | u32::from(*byte) << (16 - 8 * at));
        for at in 0..4 {
            let letter = LETTERS[(bits >> (18 - 6 * at)) as usize % 64];
            text.push(if at <= three.len() { letter.into() } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_as_rfc_4648_has_it() {
        for (bytes, text) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg==")]
        {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
        assert_eq!(base64(&[0xff, 0xef, 0xbe]), "/+++");
    }

    #[test]
    fn ticks_are_round_and_reach_the_end() {
        let words = |whole, most| ticks(whole, most).into_iter().map(|(_, words)| words).collect::<Vec<_>>();
        assert_eq!(words(0.6, 3), ["0", "0.2", "0.4", "0.6"]);
        assert_eq!(words(4.0, 4), ["0", "1", "2", "3", "4"]);
        assert_eq!(words(8.0, 4), ["0", "2", "4", "6", "8"]);
        assert_eq!(words(11.025, 4), ["0", "5", "10"]);
        assert_eq!(words(600.0, 9), ["0", "100", "200", "300", "400", "500", "600"]);
        assert_eq!(words(0.0371, 3), ["0", "0.02"]);
    }

    #[test]
    fn shades_go_from_silent_to_loudest() {
        let powers = Array2::from_shape_vec((2, 2), vec![1.0, 1e-7, 1e-3, 0.0]).unwrap();
        let shades = shaded(&powers, 1.0);
        let at = |row, column| [0, 1, 2].map(|channel| shades[[row, column, channel]]);
        assert_eq!([at(1, 0), at(1, 1), at(0, 1)], [SHADES[4], SHADES[0], SHADES[0]]);
        assert!(at(0, 0)[0] > SHADES[3][0] && at(0, 0)[0] < SHADES[1][0]);
        assert!(shaded(&Array2::zeros((2, 2)), 0.0).iter().all(|channel| *channel == 255));
    }
}
