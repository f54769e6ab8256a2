//! The paper's figures: the speed-up of cached over naive generation against the batch size, and against the layers of
//! its network of sounds.
//!
//! The idea: a figure needs less than a report, so it has a type of its own, filled by a run or read
//! from the JSON of an earlier one; what a report says beside it is nobody's business here. Drawn as
//! SVG, whose text stays text.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::Path;

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use serde::Deserialize;

use crate::error::{Error, Result};
use crate::media::files::write_atomically;
use crate::media::npy::open_regular;

/// The bars of the paper's figure: batch sizes, and cached against naive on a Tesla K40.
pub const PAPER: [(usize, f64); 9] =
    [(1, 2.9), (2, 4.2), (4, 6.3), (8, 10.4), (16, 18.0), (32, 33.3), (64, 60.7), (128, 109.0), (256, 183.0)];

/// The paper's other figure: layers of a block of its network of sounds, milliseconds of a sample, cached and naive, and
/// their ratio as it is given, on a Tesla K40. Read from a picture, so that no time is nearer than 0.3 ms.
pub const PAPER_OF_SOUNDS: [(usize, [f64; 3]); 15] = [
    (1, [0.8, 2.4, 3.0]),
    (2, [1.9, 4.1, 2.2]),
    (3, [2.1, 6.4, 3.1]),
    (4, [2.8, 6.5, 2.3]),
    (5, [3.1, 7.9, 2.6]),
    (6, [2.8, 9.3, 3.3]),
    (7, [4.1, 10.2, 2.5]),
    (8, [4.6, 11.2, 2.4]),
    (9, [4.2, 12.5, 3.0]),
    (10, [5.2, 14.4, 2.8]),
    (11, [5.5, 18.3, 3.3]),
    (12, [6.1, 29.8, 4.9]),
    (13, [6.3, 48.1, 7.6]),
    (14, [6.8, 83.7, 12.3]),
    (15, [7.1, 160.0, 22.4]),
];

/// What speed-ups are against. Reports of each have a schema of their own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Against {
    /// Images in a batch.
    #[default]
    Images,
    /// Sounds in a batch, of a model that the paper has no numbers of.
    Sounds,
    /// Layers of a block of the paper's network of sounds.
    Layers,
}

impl Against {
    const ALL: [Against; 3] = [Against::Images, Against::Sounds, Against::Layers];

    /// What a report calls itself in its field `schema`.
    pub fn schema(self) -> &'static str {
        match self {
            Against::Images => "fast-pixel-cnn/bench/1",
            Against::Sounds => "fast-pixel-cnn/bench-sounds/1",
            Against::Layers => "fast-pixel-cnn/bench-layers/1",
        }
    }

    /// The paper's bars.
    fn paper(self) -> Vec<(usize, f64)> {
        match self {
            Against::Images => PAPER.to_vec(),
            Against::Sounds => Vec::new(),
            Against::Layers => PAPER_OF_SOUNDS.map(|(layers, [_, _, ratio])| (layers, ratio)).to_vec(),
        }
    }

    /// What stands below the axis.
    fn axis(self) -> &'static str {
        match self {
            Against::Images | Against::Sounds => "batch size (log)",
            Against::Layers => "layers of each of two blocks",
        }
    }
}

/// The largest report read, in bytes. A real one has a few thousand.
const MAX_REPORT: u64 = 1 << 20;
/// Speed-ups that can be drawn; one beyond them was not measured.
const DRAWABLE: std::ops::RangeInclusive<f64> = 1e-3..=1e6;
/// The most batch sizes in a figure, the paper's among them.
const MAX_BATCHES: usize = 40;
/// The most letters of a processor's name; a line of the legend holds them.
const MAX_NAME: usize = 60;

const FONT: &str = "sans-serif";
pub(in crate::media) const INK: RGBColor = RGBColor(40, 40, 44);
const FAINT: RGBColor = RGBColor(228, 228, 232);
pub(in crate::media) const STRONGER: RGBColor = RGBColor(190, 190, 196);
// Light and dark, so that they differ in grey too.
const PAPER_FILL: RGBColor = RGBColor(242, 180, 95);
pub(in crate::media) const MEASURED_FILL: RGBColor = RGBColor(32, 80, 142);

/// What the figure shows, beside the paper's bars. Read from a report, it takes the fields of the same
/// names.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Speedups {
    /// What the bars are against.
    #[serde(skip)]
    pub against: Against,
    /// Where it was measured.
    pub machine: Machine,
    /// What was measured.
    pub model: Model,
    /// One for each batch size, or number of layers.
    #[serde(rename = "results")]
    pub bars: Vec<Bar>,
}

/// The machine, for the legend.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Machine {
    /// The processor's name.
    pub processor: String,
    /// Threads used, on a processor.
    #[serde(default)]
    pub threads: Option<usize>,
}

/// The model, for the line below the figure.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Model {
    /// Number of parameters.
    pub parameters: usize,
    /// Rows of an image, or samples from the first that a sound's next one depends on.
    pub height: usize,
    /// Columns of an image, 1 of a sound.
    pub width: usize,
}

/// A measured bar.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
pub struct Bar {
    /// Images or sounds in the batch, or layers of a block.
    #[serde(rename = "batch", alias = "layers")]
    pub at: usize,
    /// Seconds of naive generation divided by those of cached generation.
    pub speedup: f64,
}

/// Refuses a figure's path before anything is measured: a name of another kind than `.svg`.
///
/// # Errors
/// [`Error::Unsupported`].
pub fn check_name(path: &Path) -> Result<()> {
    match path.extension() {
        Some(end) if end.eq_ignore_ascii_case("svg") => Ok(()),
        _ => Err(Error::Unsupported {
            file: path.into(),
            found: "a figure of another kind than SVG".into(),
            hint: "choose a name that ends in .svg".into(),
        }),
    }
}

impl Speedups {
    /// Reads what a figure needs of the JSON report of an earlier run.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Unsupported`] for a directory or a pipe; [`Error::Malformed`] for a file that
    /// is not such a report or has nothing that can be drawn.
    pub fn read(path: &Path) -> Result<Speedups> {
        #[derive(Deserialize)]
        struct Kind {
            schema: String,
        }
        let (file, length) = open_regular(path)?;
        if length > MAX_REPORT {
            let expected = format!("at most {MAX_REPORT} bytes");
            return Err(Error::malformed(path, "length", expected, length.to_string()));
        }
        let mut text = Vec::new();
        file.take(MAX_REPORT).read_to_end(&mut text).map_err(Error::io(path, "read"))?;
        let no_report =
            |e: serde_json::Error| Error::malformed(path, "JSON", "a report that bench wrote", e.to_string());
        // First the kind: of another schema nothing else is known.
        let Kind { schema } = serde_json::from_slice(&text).map_err(no_report)?;
        let Some(against) = Against::ALL.into_iter().find(|against| against.schema() == schema) else {
            let expected = Against::ALL.map(Against::schema).join(" or ");
            return Err(Error::malformed(path, "schema", expected, format!("{schema:?}")));
        };
        let read: Speedups = serde_json::from_slice(&text).map_err(no_report)?;
        let read = Speedups { against, ..read };
        if read.bars.is_empty() || read.slots().len() > MAX_BATCHES {
            let expected = format!("1 to {} bars", MAX_BATCHES - against.paper().len());
            return Err(Error::malformed(path, "results", expected, read.bars.len().to_string()));
        }
        for bar in &read.bars {
            if bar.at == 0 || !DRAWABLE.contains(&bar.speedup) {
                let expected = format!(
                    "a batch of 1 or more and a speed-up from {} to {}",
                    DRAWABLE.start(),
                    DRAWABLE.end()
                );
                return Err(Error::malformed(
                    path,
                    "results",
                    expected,
                    format!("{} and {}", bar.at, bar.speedup),
                ));
            }
        }
        Ok(read)
    }

    /// Draws the figure into an SVG file, atomically.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn write_svg(&self, path: &Path) -> Result<()> {
        let svg = self.svg().map_err(|e| Error::io(path, "draw")(std::io::Error::other(e.to_string())))?;
        write_atomically(path, |file| file.write_all(svg.as_bytes()))
    }

    /// The paper's and the measured bar of each place on the axis.
    fn slots(&self) -> BTreeMap<usize, [Option<f64>; 2]> {
        let paper = self.against.paper().into_iter();
        let mut slots: BTreeMap<_, _> = paper.map(|(at, speedup)| (at, [Some(speedup), None])).collect();
        for bar in &self.bars {
            slots.entry(bar.at).or_default()[1] = Some(bar.speedup.clamp(*DRAWABLE.start(), *DRAWABLE.end()));
        }
        slots
    }

    fn svg(&self) -> std::result::Result<String, DrawingAreaErrorKind<std::io::Error>> {
        let slots = self.slots();
        let size = (150 + 76 * slots.len() as u32, 520);
        let mut svg = String::new();
        let root = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        root.fill(&WHITE)?;
        self.frame(&root)?;
        bars(&slots, &root.margin(112, 86, 84, 28))?;
        root.present()?;
        drop(root);
        Ok(svg)
    }

    /// Title, legend, the axes' titles, and the line below.
    fn frame(&self, root: &Area) -> Drawn {
        let (width, height) = root.dim_in_pixel();
        let (width, height) = (width as i32, height as i32);
        let middle = 84 + (width - 84 - 28) / 2;
        let text = |words: &str, at, style: &TextStyle| root.draw_text(words, style, at);
        let left = Pos::new(HPos::Left, VPos::Center);
        let center = Pos::new(HPos::Center, VPos::Center);

        text("Speed-up of cached over naive generation", (middle, 28), &letters(20, INK).pos(center))?;
        let Machine { processor, threads } = &self.machine;
        // XML has no control characters, not even escaped ones.
        let mut visible = processor.chars().filter(|c| !c.is_control());
        let mut name: String = visible.by_ref().take(MAX_NAME).collect();
        if visible.next().is_some() {
            name.push('…');
        }
        let here = match threads {
            None => format!("{name} (measured)"),
            Some(1) => format!("{name}, 1 thread (measured)"),
            Some(threads) => format!("{name}, {threads} threads (measured)"),
        };
        let paper = "Tesla K40, TensorFlow (paper)".to_string();
        let legend = [(58, PAPER_FILL, paper), (80, MEASURED_FILL, here)];
        // The last line alone where the paper has no bars.
        let without = usize::from(self.against.paper().is_empty());
        for (y, fill, words) in legend.into_iter().skip(without) {
            root.draw(&Rectangle::new([(96, y - 7), (110, y + 7)], fill.filled()))?;
            text(&words, (118, y), &letters(14, INK).pos(left))?;
        }
        text(self.against.axis(), (middle, height - 54), &letters(15, INK).pos(center))?;
        let upright = letters(15, INK).transform(FontTransform::Rotate270);
        text(
            "speed-up: naive seconds / cached seconds (log)",
            (24, 112 + (height - 112 - 86) / 2),
            &upright.pos(center),
        )?;
        let Model { parameters, height: h, width: w } = self.model;
        let millions = parameters as f64 / 1e6;
        let below = match self.against {
            Against::Images => {
                format!("Measured: PixelCNN++ of {millions:.1} million parameters, images of {h}x{w}.")
            }
            Against::Sounds => {
                format!(
                    "Measured: WaveNet of {millions:.1} million parameters, naive with passes over {h} samples."
                )
            }
            Against::Layers => format!("Measured: one sound, naive with passes over up to {h} samples."),
        };
        text(&below, (middle, height - 22), &letters(12, INK).pos(center))
    }
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn = std::result::Result<(), DrawingAreaErrorKind<std::io::Error>>;

pub(in crate::media) fn letters(size: i32, color: RGBColor) -> TextStyle<'static> {
    (FONT, size).into_font().color(&color)
}

/// The bars with their numbers, and the axes' lines and ticks. Bars stand evenly side by side, which for batches of
/// powers of two is a logarithmic axis.
fn bars(slots: &BTreeMap<usize, [Option<f64>; 2]>, area: &Area) -> Drawn {
    let speedups = || slots.values().flatten().flatten();
    let low = speedups().copied().fold(1.0, f64::min).log10().floor() as i32;
    // A quarter of a decade more, for the number on the highest bar.
    let high = speedups().copied().fold(10.0, f64::max) * 1.8;
    let bottom = 10f64.powi(low);
    let right = slots.len() as f64 - 0.5;
    let mut chart = ChartBuilder::on(area).build_cartesian_2d(-0.5..right, (bottom..high).log_scale())?;
    let (edge, _) = chart.plotting_area().get_pixel_range();
    let edge = edge.start;

    let decades = (low..).take_while(|&d| 10f64.powi(d) <= high);
    let ticks = decades.flat_map(|d| [1, 2, 5].map(move |digit| (digit, f64::from(digit) * 10f64.powi(d))));
    for (digit, y) in ticks.filter(|(_, y)| *y <= high) {
        let color = if digit == 1 { STRONGER } else { FAINT };
        chart.draw_series([PathElement::new([(-0.5, y), (right, y)], color)])?;
        if digit == 1 {
            let (_, at) = chart.backend_coord(&(0.0, y));
            let style = letters(13, INK).pos(Pos::new(HPos::Right, VPos::Center));
            written(area, &y.to_string(), (edge - 8, at), &style)?;
        }
    }
    for (slot, (place, [paper, measured])) in slots.iter().enumerate() {
        let x = slot as f64;
        // Side by side around the middle; a bar alone in the middle.
        let shift = if paper.is_some() && measured.is_some() { 0.22 } else { 0.0 };
        for (bar, at, fill) in [(paper, x - shift, PAPER_FILL), (measured, x + shift, MEASURED_FILL)] {
            let Some(speedup) = *bar else { continue };
            let sides = [(at - 0.2, bottom), (at + 0.2, speedup)];
            chart.draw_series([Rectangle::new(sides, fill.filled())])?;
            let (x, y) = chart.backend_coord(&(at, speedup));
            let words = number(speedup);
            // No line of the grid through the number: digits of this size are about 7 pixels wide.
            let half = 1 + 7 * words.len() as i32 / 2;
            let (left, top) = area.get_base_pixel();
            let clear = [(x - half - left, y - 16 - top), (x + half - left, y - 2 - top)];
            area.draw(&Rectangle::new(clear, WHITE.filled()))?;
            let style = letters(12, INK).pos(Pos::new(HPos::Center, VPos::Bottom));
            written(area, &words, (x, y - 4), &style)?;
        }
        let (x, y) = chart.backend_coord(&(x, bottom));
        let style = letters(13, INK).pos(Pos::new(HPos::Center, VPos::Top));
        written(area, &place.to_string(), (x, y + 8), &style)?;
    }
    chart.draw_series([PathElement::new([(-0.5, bottom), (right, bottom)], INK)]).map(drop)
}

/// Text at a position counted in the whole picture, as [`plotters::chart::ChartContext::backend_coord`]
/// gives it; an area counts from its own corner.
fn written(area: &Area, words: &str, (x, y): (i32, i32), style: &TextStyle) -> Drawn {
    let (left, top) = area.get_base_pixel();
    area.draw_text(words, style, (x - left, y - top))
}

/// As exact as the paper gives its numbers.
fn number(speedup: f64) -> String {
    let digits = usize::from(speedup < 99.95) + usize::from(speedup < 0.995);
    format!("{speedup:.digits$}")
}
