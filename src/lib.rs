//! Fast generation for convolutional autoregressive models: PixelCNN++ and networks of its kind, one pixel at a time,
//! where every hidden value is computed once and kept as long as something reads it.
//!
//! ```
//! use fast_pixel_cnn::{Device, Run, Weights};
//!
//! # fn main() -> fast_pixel_cnn::Result<()> {
//! let mut engine = Device::auto().open(&Weights::load("models/digits")?)?;
//! let images = Run::new(16).seed(1).class(3).generate(&mut engine)?;
//! # let place = tempfile::tempdir().expect("a directory for the picture");
//! # std::env::set_current_dir(&place).expect("it is there");
//! images.save_png("digits.png")?;
//! # let picture = fast_pixel_cnn::media::images::read(&["digits.png"], None, 3)?;
//! # assert_eq!(picture.dim(), (1, 4 * 34 - 2, 4 * 34 - 2, 3));
//! # Ok(())
//! # }
//! ```
//!
//! `images.images` has the floats, `[16, 32, 32, 3]` in [-1, 1]. They follow from the weights, the seed, the image's
//! index, its class, the temperature and the kind of device alone, bit for bit: batches, threads and methods change
//! nothing. A WaveNet's sounds are images of one column: `Run::new(1).size(4800, 1)` is 0.6 s at 8 kHz, which
//! [`Generated::save_wav`] writes. More examples are in the package's directory `examples`: completing an image,
//! scoring images, and a network of one's own.
//!
//! | module | for |
//! | --- | --- |
//! | [`weights`] | loading a model: a trainer's checkpoint, or what [`weights::convert`] made of one |
//! | [`device`] | opening an engine with weights, on the processor or a GPU; [`cpu`] has the processor's options, [`Precision`] the weights' |
//! | [`generate`] | runs of images or sounds: seed, class, size, completion, progress and stopping |
//! | [`evaluate`] | likelihoods of given images and sounds, and classes of images |
//! | [`media`] | images as bytes and floats, sounds as amplitudes and codes, and the files that hold them |
//! | [`engine`] | the trait that engines have, and single batches with all that can be asked of one |
//! | [`models`], [`graph`], [`heads`] | architectures, the language that they are written in, distributions of a pixel |
//! | [`checkpoint`] | any arrays of a trainer's files, by name |
//! | [`error`] | what can go wrong: one enum, one line for each |
//!
//! | feature | |
//! | --- | --- |
//! | `cli` (default) | the programs `generate`, `evaluate`, `convert` and `bench`, and the crates that only they need |
//! | `cuda` | the CUDA engine: needs nvcc to build, and looks for the driver when a device is asked for |
//! | `nvtx` | `cuda`, with named ranges in its profiles |
//!
//! # The order of the modules
//!
//! Data flows one way: checkpoint -> model -> weights -> plan -> engine -> images. The modules are layers, and each
//! uses only those below it:
//!
//! - [`device`] opens an engine by name
//! - [`cpu`] and `cuda`, the backends; [`generate`] and [`evaluate`] drive any
//! - [`engine`]: what a backend can do
//! - `plan`: a graph made ready for any backend
//! - [`weights`]
//! - [`models`]: one directory for each architecture; `precision`: how weights are stored
//! - [`graph`]: a network as data, and what follows from it
//! - [`heads`]: what the last layer's numbers mean
//! - [`checkpoint`]
//! - [`media`]: files for people
//! - `memory`, `philox`
//! - [`error`]
//!
//! The programs stand on top, and with them `cli`, what they share. Modules
//! without a link here are for this package's own programs, tests and benchmarks: they may change at any time.

pub mod checkpoint;
pub mod cpu;
pub mod device;
pub mod engine;
pub mod error;
pub mod evaluate;
pub mod generate;
pub mod graph;
pub mod heads;
pub mod media;
pub mod models;
mod precision;
pub mod weights;

// What the programs, tests and benchmarks of this package need beside them.
#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod cli;
#[doc(hidden)]
pub mod cuda;
#[doc(hidden)]
pub mod memory;
#[doc(hidden)]
pub mod philox;
#[doc(hidden)]
pub mod plan;

pub use device::Device;
pub use engine::Engine;
pub use error::{Error, Result};
pub use generate::{Generated, Run};
pub use models::{ModelConfig, Nonlinearity, PixelCnnPp, WaveNet};
pub use precision::Precision;
pub use weights::Weights;

/// The code in README, compiled.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
