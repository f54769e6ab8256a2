//! The animations of `generate`, decoded frame by frame and laid over each other as a viewer does.

#[path = "common/models.rs"]
mod models;
#[path = "common/run.rs"]
mod run;

use std::fs::{self, File};
use std::io::BufReader;
use std::path::{Path, PathBuf};

use fast_pixel_cnn::media::images;
use models::{argument, tiny};
use ndarray::{Array3, ArrayView3, Axis, s};
use run::{Run, run};
use serde_json::Value;
use tempfile::TempDir;

const GREY: u8 = 128;

/// A run with `--animate` and the directory it wrote to.
struct Animated {
    run: Run,
    dir: TempDir,
    name: String,
}

fn animate(name: &str, args: &[&str]) -> Animated {
    let dir = tempfile::tempdir().unwrap();
    let [file, out] = [name, "out"].map(|name| dir.path().join(name).display().to_string());
    let run = run("generate", &[args, &["--animate", &file, "--save-dir", &out]].concat());
    Animated { run, dir, name: name.into() }
}

impl Animated {
    fn succeeds(self) -> Animated {
        Animated { run: self.run.succeeds(), ..self }
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join(&self.name)
    }

    fn film(&self) -> Film {
        if self.name.ends_with("gif") { read_gif(&self.file()) } else { read_apng(&self.file()) }
    }

    /// The grid that the run wrote, each pixel as a square of `scale`.
    fn grid(&self, scale: usize) -> Array3<u8> {
        let grid = images::read(&[self.dir.path().join("out/samples.png")], None, 3).unwrap();
        let (_, height, width, _) = grid.dim();
        Array3::from_shape_fn((height * scale, width * scale, 3), |(y, x, c)| {
            grid[[0, y / scale, x / scale, c]]
        })
    }
}

/// What a viewer shows, one picture `[H, W, 3]` after the other.
struct Film {
    pictures: Vec<Array3<u8>>,
    /// Milliseconds.
    holds: Vec<u32>,
    /// The largest part of the picture that a frame after the first takes.
    largest: f64,
}

/// Lays frames over each other: left, top, width, height, RGBA and milliseconds.
fn lay(size: [usize; 2], frames: Vec<([usize; 4], Vec<u8>, u32)>) -> Film {
    let [width, height] = size;
    let mut picture = Array3::zeros((height, width, 3));
    let mut film = Film { pictures: vec![], holds: vec![], largest: 0.0 };
    for (i, ([left, top, w, h], rgba, hold)) in frames.into_iter().enumerate() {
        for (at, pixel) in rgba.chunks_exact(4).enumerate() {
            assert!(pixel[3] == 255 || pixel[3] == 0);
            assert!(i > 0 || pixel[3] == 255, "the first picture is whole");
            if pixel[3] == 255 {
                let (y, x) = (top + at / w, left + at % w);
                picture.slice_mut(s![y, x, ..]).iter_mut().zip(pixel).for_each(|(to, from)| *to = *from);
            }
        }
        assert_eq!(rgba.len(), 4 * w * h);
        film.pictures.push(picture.clone());
        film.holds.push(hold);
        if i > 0 {
            film.largest = film.largest.max((w * h) as f64 / (width * height) as f64);
        }
    }
    film
}

fn read_apng(path: &Path) -> Film {
    let mut reader = png::Decoder::new(BufReader::new(File::open(path).unwrap())).read_info().unwrap();
    let control = *reader.info().animation_control().unwrap();
    assert_eq!(control.num_plays, 0, "it repeats for ever");
    let size = [reader.info().width as usize, reader.info().height as usize];
    let mut frames = Vec::new();
    for _ in 0..control.num_frames {
        let mut rgba = vec![0; reader.output_buffer_size().unwrap()];
        let used = reader.next_frame(&mut rgba).unwrap().buffer_size();
        rgba.truncate(used);
        let frame = *reader.info().frame_control().unwrap();
        assert_eq!((frame.blend_op, frame.dispose_op), (png::BlendOp::Over, png::DisposeOp::None));
        let place = [frame.x_offset, frame.y_offset, frame.width, frame.height].map(|n| n as usize);
        let hold = 1000 * u32::from(frame.delay_num) / u32::from(frame.delay_den);
        frames.push((place, rgba, hold));
    }
    reader.finish().unwrap();
    lay(size, frames)
}

fn read_gif(path: &Path) -> Film {
    let mut options = gif::DecodeOptions::new();
    options.set_color_output(gif::ColorOutput::RGBA);
    let mut decoder = options.read_info(BufReader::new(File::open(path).unwrap())).unwrap();
    let size = [usize::from(decoder.width()), usize::from(decoder.height())];
    let mut frames = Vec::new();
    while let Some(frame) = decoder.read_next_frame().unwrap() {
        assert_eq!(frame.dispose, gif::DisposalMethod::Keep);
        let place = [frame.left, frame.top, frame.width, frame.height].map(usize::from);
        frames.push((place, frame.buffer.to_vec(), 10 * u32::from(frame.delay)));
    }
    assert_eq!(decoder.repeat(), gif::Repeat::Infinite);
    lay(size, frames)
}

/// Checks that a picture shows the first `shown` pixels of each image of a grid, and grey after them.
fn shows(picture: ArrayView3<u8>, grid: &Array3<u8>, scale: usize, side: usize, shown: usize) {
    assert_eq!(picture.dim(), grid.dim());
    for ((y, x, c), value) in picture.indexed_iter() {
        let [row, column] = [y, x].map(|at| at / scale % (side + images::GAP));
        let done = row >= side || column >= side || row * side + column < shown;
        let expected = if done { grid[[y, x, c]] } else { GREY };
        assert_eq!(*value, expected, "row {row}, column {column}, with {shown} pixels shown");
    }
}

#[test]
fn the_images_of_a_run_fill_in_together_pixel_by_pixel() {
    let tiny = tiny();
    for name in ["a.png", "a.APNG", "a.gif"] {
        // Four images in two batches: a grid of 2 by 2, so 18 pixels wide, and enlarged 8 times.
        let animated = animate(name, &["-c", &tiny, "-i", "8", "-n", "4", "-b", "3", "--json"]).succeeds();
        let (film, grid) = (animated.film(), animated.grid(8));
        assert_eq!(film.pictures.len(), 65);
        for (shown, picture) in film.pictures.iter().enumerate() {
            shows(picture.view(), &grid, 8, 8, shown);
        }
        assert_eq!(film.pictures[64], grid);
        assert_eq!((film.holds[0], film.holds[64]), (400, 2000));
        let filling: u32 = film.holds[1..64].iter().sum();
        assert!((3000..5000).contains(&filling), "{filling}");
        // Two rows of images are 10 of 18 rows apart, two columns 10 of 18.
        assert!(film.largest <= (11.0f64 / 18.0).powi(2) + 1e-9, "{}", film.largest);
        let json: Value = serde_json::from_str(&animated.run.stdout).unwrap();
        assert_eq!(json["files"][4], animated.file().display().to_string());
        assert_eq!(json["side_by_side"], Value::Null);
    }
}

#[test]
fn large_images_take_several_pixels_in_a_frame_and_the_file_stays_small() {
    let animated = animate("a.png", &["-n", "23", "-b", "10", "--first-index", "4"]).succeeds();
    let (film, grid) = (animated.film(), animated.grid(1));
    assert_eq!(film.pictures.len(), 111);
    assert_eq!(film.pictures[110], grid);
    // The cells before the first image are empty from the start.
    assert!(film.pictures[0].slice(s![..32, ..4 * 34, ..]).iter().all(|&b| b == 0));
    assert!(film.pictures[0].slice(s![..32, 4 * 34..4 * 34 + 32, ..]).iter().all(|&b| b == GREY));
    let total: u32 = film.holds.iter().sum();
    assert!((5000..8000).contains(&total), "{total}");
    let bytes = fs::metadata(animated.file()).unwrap().len();
    assert!(bytes < 200_000, "{bytes}");
    assert!(animated.run.stdout.trim_end().ends_with("a.png"), "{}", animated.run.stdout);
}

#[test]
fn kept_rows_are_there_from_the_start() {
    let (tiny, given) = (tiny(), argument("tiny/images_u8.npy"));
    let count = images::read(&[&given], None, 3).unwrap().dim().0;
    for (rows, frames) in [(3, 41), (8, 1)] {
        let kept = rows.to_string();
        let animated =
            animate("a.png", &["-c", &tiny, "--complete", &given, "--keep-rows", &kept]).succeeds();
        let (film, grid) = (animated.film(), animated.grid(8));
        assert_eq!(grid.len_of(Axis(0)), (8 * count.div_ceil(2) + 2 * (count.div_ceil(2) - 1)) * 8);
        assert_eq!(film.pictures.len(), frames);
        shows(film.pictures[0].view(), &grid, 8, 8, rows * 8);
        assert_eq!(film.pictures[frames - 1], grid);
    }
}

#[test]
fn naive_beside_cached_shows_both_at_their_own_speed() {
    let tiny = tiny();
    for name in ["race.png", "race.gif"] {
        let args = ["-c", &tiny, "-i", "32", "-n", "6", "-b", "4", "--json", "--side-by-side"];
        let animated = animate(name, &args).succeeds();
        let json: Value = serde_json::from_str(&animated.run.stdout).unwrap();
        let number = |key: &str| json["side_by_side"][key].as_f64().unwrap();
        assert_eq!(number("naive_passes"), 3.0);
        assert_eq!(number("cached_seconds"), json["seconds"].as_f64().unwrap());
        let speedup = number("naive_seconds") / number("cached_seconds");
        assert!((number("speedup") / speedup - 1.0).abs() < 1e-9 && speedup > 8.0, "{speedup}");

        let (film, mut grid) = (animated.film(), animated.grid(3));
        let (height, width, _) = grid.dim();
        // Beside each other, images have light gaps.
        let light = film.pictures[0][[0, 0, 0]];
        for ((y, x, _), value) in grid.indexed_iter_mut() {
            if [y, x].iter().any(|at| at / 3 % 34 >= 32) {
                *value = light;
            }
        }
        let last = film.pictures.last().unwrap();
        assert!(last.len_of(Axis(1)) >= 2 * width);
        assert_eq!(film.holds.iter().sum::<u32>(), 6000);
        // Each side stands where the whole grid is at the end, or where the first picture is grey.
        let grey = |x: usize| film.pictures[0][[height / 2, x, 0]] == GREY;
        let left = (0..last.len_of(Axis(1))).find(|&x| grey(x)).unwrap();
        let right = (last.len_of(Axis(1)) / 2..).find(|&x| grey(x)).unwrap();
        let top = (0..).find(|&y| film.pictures[0][[y, left, 0]] == GREY).unwrap();
        let side = |picture: &Array3<u8>, x: usize| {
            picture.slice(s![top..top + height, x..x + width, ..]).to_owned()
        };
        let first = &film.pictures[0];
        assert_eq!(side(first, left), side(first, right));
        shows(side(first, left).view(), &grid, 3, 32, 0);
        if name.ends_with("png") {
            assert_eq!(side(last, right), grid);
        }
        // Four times what the cached side needed, at a speed that many times lower.
        let naive = (1024.0 * 600.0 / 150.0 / speedup) as usize;
        let shown = (naive.saturating_sub(40)..=naive).find(|&shown| {
            let picture = side(last, left);
            picture.indexed_iter().all(|((y, x, c), value)| {
                let [row, column] = [y, x].map(|at| at / 3 % 34);
                let done = row >= 32 || column >= 32 || row * 32 + column < shown;
                name.ends_with("gif") && done || *value == if done { grid[[y, x, c]] } else { GREY }
            })
        });
        assert!(shown.is_some_and(|shown| shown > 0), "{naive}");
        // Captions stand above the sides and below them.
        let dark = |rows: std::ops::Range<usize>, columns: std::ops::Range<usize>| {
            last.slice(s![rows, columns, 0]).iter().filter(|&&value| value < 100).count()
        };
        let (bottom, middle) = (top + height, last.len_of(Axis(1)) / 2);
        assert!(dark(0..top, 0..middle) > 200 && dark(0..top, middle..2 * middle) > 200);
        assert!(dark(bottom..last.len_of(Axis(0)), 0..2 * middle) > 400);
    }
    let text = animate("a.png", &["-c", &tiny, "-i", "8", "-b", "2", "--side-by-side"]).succeeds().run.stdout;
    assert!(text.contains("by 3 full forward passes times the pixels; cached is "), "{text}");
}

#[test]
fn what_cannot_be_written_is_refused_before_anything_is_generated() {
    let (tiny, given) = (tiny(), argument("tiny/images_u8.npy"));
    // Hours of work, were it begun.
    let long = ["-n", "3000", "-b", "8", "--naive"];
    let refused = |name: &str, args: &[&str], parts: &[&str]| {
        let animated = animate(name, args);
        animated.run.fails_with(parts);
        assert_eq!(fs::read_dir(animated.dir.path()).unwrap().count(), 0);
    };
    for name in ["a", "a.jpg", "gif", "a.gif.mp4"] {
        refused(name, &long, &[name, "ends in .png or .gif"]);
    }
    refused("no/such/a.gif", &["-n", "200", "-b", "8", "--naive"], &["a.gif: cannot create"]);
    refused("a.gif", &long, &["--animate ", "a.gif: expected", "at most 2097152 pixels", "3000 images"]);
    let side = ["-c", &tiny, "--complete", &given, "--keep-rows", "8", "--side-by-side"];
    refused("a.gif", &side, &["--side-by-side: all rows are kept"]);
    let dir = tempfile::tempdir().unwrap();
    let directory = dir.path().join("taken.png");
    fs::create_dir(&directory).unwrap();
    let args = ["-n", "200", "--naive", "--animate", directory.to_str().unwrap()];
    run("generate", &args).fails_with(&["taken.png: a directory"]);

    let usage: [&[&str]; 2] = [&["--side-by-side"], &["--animate", "a.gif", "--side-by-side", "--naive"]];
    for args in usage {
        let run = run("generate", args);
        assert_eq!((run.code, run.stdout.as_str()), (Some(2), ""), "{args:?}");
        assert_eq!(run.stderr.lines().filter(|line| line.starts_with("error:")).count(), 1);
    }
}

#[cfg(unix)]
#[test]
fn ctrl_c_animates_the_images_that_are_finished() {
    use std::process::{Command, Stdio};
    use std::time::Duration;

    use assert_cmd::cargo::CommandCargoExt;

    let dir = tempfile::tempdir().unwrap();
    let (file, out) = (dir.path().join("a.png"), dir.path().join("out"));
    // The model of the digits; the picture of 1000 is within the limit, making them takes many seconds.
    let mut command = Command::cargo_bin("generate").unwrap();
    command.args(["-n", "1000", "-b", "1", "--naive", "--threads", "1", "-i", "4", "--json"]);
    command.arg("-v").arg(&out).arg("--animate").arg(&file);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    while !out.exists() {
        std::thread::sleep(Duration::from_millis(10));
    }
    std::thread::sleep(Duration::from_millis(1000));
    let sent = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
    let output = child.wait_with_output().unwrap();
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((output.status.code(), json["interrupted"].as_bool()), (Some(130), Some(true)));
    assert_eq!(json["files"][5], file.display().to_string());
    let grid = images::read(&[out.join("samples.png")], None, 3).unwrap();
    let film = read_apng(&file);
    let scale = film.pictures[0].len_of(Axis(0)) / grid.len_of(Axis(1));
    let last = film.pictures.last().unwrap();
    assert_eq!(last.slice(s![..;scale, ..;scale, ..]), grid.index_axis(Axis(0), 0));
}
