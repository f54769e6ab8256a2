//! The flags, and what their values mean.
//!
//! The idea: a value that no run could have is refused where it is parsed; what depends on the model or on
//! other flags is for others.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use clap::{Parser, ValueEnum};
use fast_pixel_cnn::cli;
use fast_pixel_cnn::generate::Classes;

const EXAMPLES: &str = "\
Examples:
  generate --class all -n 60 -b 60
          sixty digits of the demo model, out/samples.png
  generate -c models/spoken-digits --class 3 --seconds 0.6
          says \"three\", out/sounds/000000.wav
  generate -c models/spoken-digits --class all --seconds 0.6 --plot digits.svg
          all ten digits, and a picture of them
  generate -c MODEL --prime begin.wav --seconds 2
          goes on from a sound";

/// What the library calls the values of flags that have other names here.
pub const NAMES: [(&str, &str); 3] =
    [("given images", "complete"), ("given rows", "keep_rows"), ("animation", "animate")];

/// Generate images with a PixelCNN++, or sounds with a WaveNet.
///
/// Image or sound i of a seed is the same however a run is split: by batch size, by --first-index, by
/// threads, cached or naive.
///
/// Of images it writes samples.png (a grid, not scaled), images.npy (uint8 [N, H, W, C]), samples.npy (float32, as
/// sampled) and, for a class-conditional model, labels.npy into the save directory; or a directory of single images.
/// Of sounds it writes sounds/000000.wav and so on (16 bits), codes.npy (int32 [N, T]), waveform.npy (float32
/// [N, T]) and labels.npy. See --format. With either run.json, which tells the series (weights by their SHA-256, seed,
/// temperature and so on) and the indices of what is there, so that parts made elsewhere can be put together.
///
/// The save directory holds one run at a time. Its files replace an earlier run's: those of the same names, and
/// of these names also those that this run does not write, if they are as the program left them (it keeps a
/// list in .generate.json). A file that the program did not make stays, with a warning. The directory of single
/// images or sounds can be filled by several runs of one series, that is, with other --first-index and --count only.
/// Other images there are refused; so are other sounds, but for up to 1000 that one run made and nobody has changed
/// since, which are replaced.
///
/// Ctrl-C writes the batches that are finished and exits with status 130; a second one stops at once. SIGTERM
/// (status 143) and SIGHUP (129) do so too.
#[derive(Clone, Debug, Parser)]
#[command(version, allow_negative_numbers = true, after_help = EXAMPLES)]
pub struct Args {
    #[command(flatten)]
    pub weights: cli::WeightsArgs,

    /// Images or sounds made at a time
    #[arg(short, long, value_name = "N", default_value_t = 16)]
    pub batch_size: usize,

    /// For images: their side, or height and width as HxW; multiples of 4 [default: 32, or that of the
    /// files given]
    #[arg(short, long, value_name = "SIZE")]
    pub image_size: Option<Size>,

    /// Seed of the random numbers
    #[arg(short, long, value_name = "N", default_value_t = 2702)]
    pub seed: u64,

    /// Directory for the results, for one run at a time; made if it does not exist
    #[arg(short = 'v', long, value_name = "DIR", default_value = "out")]
    pub save_dir: PathBuf,

    /// Number of images or sounds [default: one batch of images; one sound, or with --class all one for each
    /// class; or that of the files given]
    #[arg(short = 'n', long, value_name = "N")]
    pub count: Option<usize>,

    /// Index of the first image or sound
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub first_index: u64,

    /// Class of all images or sounds; with "all" number i has class i modulo the number of classes, and a grid of
    /// images a column for each class [default for a class-conditional model: all]
    #[arg(long, value_name = "K|all", value_parser = parse_classes)]
    pub class: Option<Classes<'static>>,

    #[command(flatten)]
    pub engine: cli::EngineArgs,

    /// Draw with the logits divided, and a mixture's scales multiplied, by T: below 1 what is likelier, above 1
    /// more that is not
    #[arg(long, value_name = "T", default_value_t = 1.0, value_parser = cli::parse_temperature)]
    pub temperature: f32,

    /// Do a full forward pass for each pixel or sample, as the original does: the same images or sounds, slowly
    #[arg(long)]
    pub naive: bool,

    /// What to write: npy (images.npy, samples.npy; codes.npy, waveform.npy; labels.npy); for images png
    /// (samples.png, the grid) and images (each as a PNG named by its index, images/000042.png); for sounds wav (each
    /// named by its index, sounds/000042.wav, 16 bits) or wav-f32 (floats). Files of single images and sounds are
    /// written as their batch is finished; alone they take no memory for what is finished [default: png,npy or
    /// wav,npy]
    #[arg(long, value_enum, value_name = "LIST", value_delimiter = ',')]
    pub format: Option<Vec<Format>>,

    /// For sounds: seconds to make of each [default: 1, or as much as the numbers given with --noise]
    #[arg(long, value_name = "S", value_parser = parse_seconds, conflicts_with = "length")]
    pub seconds: Option<f64>,

    /// For sounds: samples to make of each
    #[arg(long, value_name = "N")]
    pub length: Option<usize>,

    /// For sounds: go on from a WAV file, which what is written begins with
    #[arg(long, value_name = "FILE")]
    pub prime: Option<PathBuf>,

    /// For sounds: also draw them, waveforms and spectrograms, as SVG or PNG by the name's end
    #[arg(long, value_name = "FILE")]
    pub plot: Option<PathBuf>,

    /// For images: complete given images (PNG, or .npy or .npz of type uint8 and shape [H, W, C] or [N, H, W, C]): the first
    /// rows are kept and the rest is generated. One image is completed in as many ways as --count says
    #[arg(long, value_name = "IMAGE", requires = "keep_rows")]
    pub complete: Option<PathBuf>,

    /// The array to take from an .npz file given to --complete [default: its only one, or data]
    #[arg(long, value_name = "NAME", requires = "complete")]
    pub key: Option<String>,

    /// Rows of the given images to keep
    #[arg(long, value_name = "N", requires = "complete")]
    pub keep_rows: Option<usize>,

    /// Take the uniform random numbers from a .npy file: for images [N, H, W, m + C] (float32), m for the component
    /// and one for each of C channels, or PATH/u_mix.npy [N, H, W, m] and PATH/u_logistic.npy [N, H, W, C]; for
    /// sounds [N, T] (float32 or float64), or PATH/u.npy
    #[arg(long, value_name = "PATH", conflicts_with = "seed")]
    pub noise: Option<PathBuf>,

    /// For images: also write an animation of them filling in pixel by pixel, as GIF or animated PNG by the
    /// name's end
    #[arg(long, value_name = "FILE")]
    pub animate: Option<PathBuf>,

    /// Animate naive beside cached, each as fast as it is here: cached as this run, naive by the time of
    /// 3 full forward passes, times the pixels
    #[arg(long, requires = "animate", conflicts_with = "naive")]
    pub side_by_side: bool,

    /// Tell no progress on stderr: neither the bar on a terminal nor, elsewhere, a line every 30 seconds
    #[arg(long)]
    pub quiet: bool,

    /// Print one JSON object instead of text
    #[arg(long)]
    pub json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// samples.png
    Png,
    /// Arrays.
    Npy,
    /// images/000042.png, for each image
    Images,
    /// sounds/000042.wav, for each sound, of 16 bits
    Wav,
    /// The same of floats.
    WavF32,
}

impl Format {
    /// What it is called in `--format`.
    pub fn name(self) -> &'static str {
        match self {
            Format::Png => "png",
            Format::Npy => "npy",
            Format::Images => "images",
            Format::Wav => "wav",
            Format::WavF32 => "wav-f32",
        }
    }
}

/// Height and width.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size(pub [usize; 2]);

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Size, String> {
        let (height, width) = text.split_once(['x', 'X']).unwrap_or((text, text));
        match (height.parse(), width.parse()) {
            (Ok(height), Ok(width)) => Ok(Size([height, width])),
            _ => Err("expected a number, or height and width as HxW".into()),
        }
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}", self.0[0], self.0[1])
    }
}

fn parse_seconds(text: &str) -> std::result::Result<f64, String> {
    let seconds = text.parse().ok().filter(|s: &f64| *s > 0.0 && s.is_finite());
    seconds.ok_or_else(|| "expected a finite number above 0".into())
}

fn parse_classes(text: &str) -> std::result::Result<Classes<'static>, String> {
    if text == "all" {
        return Ok(Classes::All);
    }
    let class = text.parse().map(Classes::One);
    class.map_err(|_| "expected the number of a class, or all".into())
}
