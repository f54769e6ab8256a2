//! Animations of a run: its images fill in pixel by pixel, alone or as a race of naive and cached.
//!
//! The idea: generation is deterministic and goes in raster order, so the finished images are all that
//! an animation needs; after p pixels each image shows its first p, and the rest is grey. A race shows
//! the same images twice, each side as fast as its method was measured to be, on one clock.

mod canvas;
mod encode;

use std::path::Path;

use ndarray::ArrayView4;

use crate::error::{Error, Result};
use crate::media::files::write_atomically;
use crate::media::font;
use crate::media::images::Grid;
use canvas::{Canvas, Color};

/// The largest picture of an animation, in pixels.
const MAX_PIXELS: usize = 1 << 21;
/// Its longest side; a GIF could not count beyond.
const MAX_SIDE: usize = 65_535;
/// Small images are enlarged up to this side of the grid, alone or as one of two.
const ENLARGED: [usize; 2] = [480, 380];
/// How often at most.
const MAX_SCALE: usize = 8;

/// Hundredths of a second for which a frame is shown at least; browsers slow down what is faster.
const TICK: u16 = 4;
/// Hundredths of a second in which images alone fill in, for which they are blank before and complete
/// after it.
const FILL: u16 = 440;
const BLANK: u16 = 40;
const COMPLETE: u16 = 200;
/// Hundredths of a second in which the cached side of a race is done, and until it begins anew.
const CACHED: u16 = 150;
const RACE: u16 = 600;

/// A pixel that is not made yet.
const UNMADE: Color = [128; 3];
/// Between images alone, as in the still grid; a race has light gaps, or dark pixels at an image's edge
/// could not be told from them.
const GAP: Color = [0; 3];
const PAPER: Color = [250; 3];
const INK: Color = [40, 40, 44];

/// Pixels around a race, and between its sides.
const MARGIN: usize = 12;
const BETWEEN: usize = 36;
/// Pixels for each dot of a caption's letters, and from line to line.
const LETTER: usize = 2;
const LINE: usize = LETTER * (font::HEIGHT + 3);
/// Columns that each side of a race has at least, for its captions.
const SIDE: usize = LETTER * font::ADVANCE * 20;

/// What is shown.
#[derive(Clone, Copy, Debug)]
pub struct Scene {
    /// How the images are laid out.
    pub grid: Grid,
    /// Number of images.
    pub count: usize,
    /// Rows of an image.
    pub height: usize,
    /// Columns of an image.
    pub width: usize,
    /// Rows that are there from the start.
    pub given_rows: usize,
}

/// What is written below the two sides.
fn captions([naive, cached]: [f64; 2]) -> [String; 2] {
    let slower = f64::from(CACHED) / 100.0 / cached;
    let time = match slower < 1.0 {
        true => format!("time sped up {} times", number(1.0 / slower)),
        false => format!("time slowed down {} times", number(slower)),
    };
    [format!("cached is {} times faster", number(naive / cached)), time]
}

/// A number with three digits that count.
fn number(value: f64) -> String {
    let digits = (2.0 - value.log10().floor()).clamp(0.0, 4.0) as usize;
    format!("{value:.digits$}")
}

/// The kinds of files.
#[derive(Clone, Copy, Debug)]
enum Format {
    Apng,
    Gif,
}

impl Format {
    /// By a name's end.
    fn of(path: &Path) -> Result<Format> {
        let end = path.extension().and_then(|end| end.to_str()).unwrap_or_default();
        match end.to_ascii_lowercase().as_str() {
            "png" | "apng" => Ok(Format::Apng),
            "gif" => Ok(Format::Gif),
            _ => Err(Error::Unsupported {
                file: path.into(),
                found: "an animation of another kind than PNG and GIF".into(),
                hint: "choose a name that ends in .png or .gif".into(),
            }),
        }
    }
}

/// Where everything is in the picture, in its pixels.
struct Layout {
    /// Width and height.
    size: [usize; 2],
    /// Pixels for each pixel of an image.
    scale: usize,
    /// Left and top of each grid: one, or naive and cached.
    sides: Vec<[usize; 2]>,
    /// Width and height of a grid.
    grid: [usize; 2],
}

impl Layout {
    /// # Errors
    /// [`Error::Argument`] for a picture that is too large.
    fn new(scene: &Scene, race: bool) -> Result<Layout> {
        let (height, width) = scene.grid.size(scene.count, scene.height, scene.width);
        let scale = (ENLARGED[usize::from(race)] / height.max(width).max(1)).clamp(1, MAX_SCALE);
        let grid = [width, height].map(|side| side.saturating_mul(scale));
        let (size, sides) = if race {
            let side = grid[0].max(SIDE);
            let left = MARGIN + (side - grid[0]) / 2;
            let top = MARGIN + 2 * LINE;
            let size = [
                side.saturating_mul(2).saturating_add(2 * MARGIN + BETWEEN),
                grid[1].saturating_add(top + MARGIN + 2 * LINE),
            ];
            (size, vec![[left, top], [left.saturating_add(side + BETWEEN), top]])
        } else {
            (grid, vec![[0, 0]])
        };
        let fits = size[0].checked_mul(size[1]).is_some_and(|pixels| pixels <= MAX_PIXELS);
        if !fits || size.iter().any(|side| *side > MAX_SIDE) {
            let expected = format!("images whose picture has at most {MAX_PIXELS} pixels");
            let found = format!("{} images, {}x{} pixels", scene.count, size[1], size[0]);
            return Err(Error::argument("animation", expected, found));
        }
        Ok(Layout { size, scale, sides, grid })
    }
}

/// A frame: how many pixels of each image the sides show, and for how long in hundredths of a second.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Frame {
    shown: [usize; 2],
    hold: u16,
}

/// The frames of images alone, of `total` pixels, `given` of them there from the start.
fn filling(given: usize, total: usize) -> Vec<Frame> {
    let steps = (total - given).min(usize::from(FILL / TICK));
    let hold = FILL.checked_div(steps as u16).map_or(0, |hold| hold.min(5 * TICK));
    let frame = |step: usize| Frame {
        shown: [given + ((total - given) * step).div_ceil(steps.max(1)); 2],
        hold: if step == steps {
            COMPLETE
        } else if step == 0 {
            BLANK
        } else {
            hold
        },
    };
    (0..=steps).map(frame).collect()
}

/// The frames of a race, naive first.
fn racing(given: usize, total: usize, [naive, cached_seconds]: [f64; 2]) -> Vec<Frame> {
    let pixels = total - given;
    let mut frames: Vec<Frame> = Vec::new();
    for tick in 0..RACE / TICK {
        let cached = f64::from(tick) * f64::from(TICK) / f64::from(CACHED);
        let shown = [cached / (naive / cached_seconds), cached]
            .map(|share| given + ((share * pixels as f64) as usize).min(pixels));
        match frames.last_mut() {
            Some(last) if last.shown == shown => last.hold += TICK,
            _ => frames.push(Frame { shown, hold: TICK }),
        }
    }
    frames
}

/// Refuses, before anything is generated, an animation that could not be written after it: a name of an
/// unknown kind, or too large a picture.
///
/// # Errors
/// [`Error::Unsupported`], [`Error::Argument`].
pub fn check(path: &Path, scene: &Scene, race: bool) -> Result<()> {
    Format::of(path)?;
    Layout::new(scene, race).map(drop)
}

/// Writes the animation of finished images `[N, H, W, C]` of one or three channels, those of the scene, as APNG or GIF by the
/// name's end, atomically. With a race, the seconds that naive and cached take, they stand side by side.
///
/// # Errors
/// As for [`check`]; [`Error::Io`]; [`Error::Argument`] for images that are not those of the scene.
pub fn write(path: &Path, scene: &Scene, images: ArrayView4<u8>, race: Option<[f64; 2]>) -> Result<()> {
    let format = Format::of(path)?;
    let layout = Layout::new(scene, race.is_some())?;
    let &Scene { count, height, width, given_rows, .. } = scene;
    let channels = images.dim().3;
    if images.shape() != [count, height, width, channels]
        || ![1, 3].contains(&channels)
        || given_rows > height
    {
        let expected = format!("shape [{count}, {height}, {width}, 3] and at most {height} given rows");
        let found = format!("{:?} and {given_rows}", images.shape());
        return Err(Error::argument("images to animate", expected, found));
    }
    let (given, total) = (given_rows * width, height * width);
    let frames = match race {
        Some(race) => racing(given, total, race),
        None => filling(given, total),
    };
    let mut canvas = blank(scene, &layout, race);
    let mut shown = [0; 2];
    let mut changes = frames.iter().enumerate().map(|(i, frame)| {
        let before = canvas.clone();
        for (side, corner) in layout.sides.iter().enumerate() {
            let pixels = shown[side]..frame.shown[side];
            for pixel in pixels {
                paint(&mut canvas, scene, &layout, images, *corner, pixel);
            }
        }
        shown = frame.shown;
        (if i == 0 { canvas.whole() } else { canvas.change(&before) }, frame.hold)
    });
    write_atomically(path, |file| match format {
        Format::Apng => encode::apng(file, layout.size, frames.len(), &mut changes),
        Format::Gif => encode::gif(file, layout.size, &mut changes),
    })
}

/// Paints one pixel of every image of a side.
fn paint(
    canvas: &mut Canvas,
    scene: &Scene,
    layout: &Layout,
    images: ArrayView4<u8>,
    [left, top]: [usize; 2],
    pixel: usize,
) {
    let (row, column) = (pixel / scene.width, pixel % scene.width);
    for image in 0..scene.count {
        let (y, x) = scene.grid.corner(image, scene.height, scene.width);
        let at = [left + (x + column) * layout.scale, top + (y + row) * layout.scale];
        // Channel c of a gray pixel is its only one.
        let last = images.dim().3 - 1;
        let color = [0, 1, 2].map(|c: usize| images[[image, row, column, c.min(last)]]);
        canvas.fill(at, [layout.scale; 2], color);
    }
}

/// The picture before the first pixel.
fn blank(scene: &Scene, layout: &Layout, race: Option<[f64; 2]>) -> Canvas {
    let [width, height] = layout.size;
    let mut canvas = Canvas::new(width, height, if race.is_some() { PAPER } else { GAP });
    for &[left, top] in &layout.sides {
        for image in 0..scene.count {
            let (y, x) = scene.grid.corner(image, scene.height, scene.width);
            let at = [left + x * layout.scale, top + y * layout.scale];
            canvas.fill(at, [scene.width, scene.height].map(|side| side * layout.scale), UNMADE);
        }
    }
    let Some(race) = race else { return canvas };
    let seconds = race.map(number);
    let times = [format!("{} s, estimated", seconds[0]), format!("{} s", seconds[1])];
    for ((name, time), [left, _]) in ["naive", "cached"].iter().zip(times).zip(&layout.sides) {
        let middle = left + layout.grid[0] / 2;
        canvas.write(name, middle, MARGIN, LETTER, INK);
        canvas.write(&time, middle, MARGIN + LINE, LETTER, INK);
    }
    let below = height - MARGIN / 2 - 2 * LINE;
    for (line, caption) in captions(race).iter().enumerate() {
        canvas.write(caption, width / 2, below + line * LINE, LETTER, INK);
    }
    canvas
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn captions_fit_and_the_font_has_their_letters() {
        for cached_seconds in [1e-3, 0.01234, 0.64, 1.5, 1234.5] {
            for speedup in [0.5, 2.94, 279.0, 1023.0] {
                let race = [speedup * cached_seconds, cached_seconds];
                for caption in captions(race) {
                    assert!(font::has(&caption), "{caption}");
                    assert!(LETTER * canvas::text_width(&caption) <= 2 * SIDE, "{caption}");
                }
                let time = format!("{} s, estimated", number(race[0]));
                assert!(font::has(&time) && LETTER * canvas::text_width(&time) <= SIDE, "{time}");
            }
        }
        let race = [178.7, 0.64];
        assert_eq!(captions(race), ["cached is 279 times faster", "time slowed down 2.34 times"]);
        let race = [60.0, 15.0];
        assert_eq!(captions(race), ["cached is 4.00 times faster", "time sped up 10.0 times"]);
    }

    #[test]
    fn filling_begins_with_what_is_given_and_ends_complete() {
        let frames = filling(96, 1024);
        assert_eq!((frames[0].shown[0], frames[0].hold), (96, BLANK));
        assert_eq!((frames[110].shown[0], frames[110].hold, frames.len()), (1024, COMPLETE, 111));
        assert!(frames.windows(2).all(|pair| pair[0].shown[0] < pair[1].shown[0]));
        assert_eq!(filling(0, 16).len(), 17);
        assert_eq!(filling(16, 16), [Frame { shown: [16; 2], hold: COMPLETE }]);
    }

    #[test]
    fn a_race_is_run_on_one_clock() {
        let race = [100.0, 1.0];
        let frames = racing(24, 1024, race);
        assert_eq!(frames.iter().map(|frame| frame.hold).sum::<u16>(), RACE);
        let mut time = 0;
        for frame in &frames {
            // Real seconds at which the frame appears; nobody may be ahead of their time.
            let seconds = f64::from(time) / f64::from(CACHED);
            let expected = [seconds / 100.0, seconds].map(|share| 24.0 + 1000.0 * share.min(1.0));
            for (shown, expected) in frame.shown.iter().zip(expected) {
                assert!(
                    (expected - 1.001..=expected + 0.001).contains(&(*shown as f64)),
                    "{frame:?} {expected}"
                );
            }
            time += frame.hold;
        }
        let last = frames[frames.len() - 1].shown;
        assert_eq!(last, [24 + 39, 1024]);
    }

    #[test]
    fn a_picture_that_is_too_large_is_refused_however_large() {
        let scene = |count, height, width| Scene {
            grid: Grid::near_square(count, height, width),
            count,
            height,
            width,
            given_rows: 0,
        };
        let check = |scene| check(Path::new("a.gif"), &scene, true);
        check(scene(400, 32, 32)).unwrap();
        for large in [scene(4000, 32, 32), scene(1, 4, 1 << 18), scene(1 << 40, 1 << 30, 1 << 30)] {
            let error = check(large).unwrap_err().to_string();
            assert!(error.starts_with("animation: expected"), "{error}");
        }
    }
}
