//! `convert`: from a trainer's checkpoint to a directory of `.npy` weights.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::Ordering;

use clap::Parser;
use fast_pixel_cnn::checkpoint::Checkpoint;
use fast_pixel_cnn::cli::signals::Signals;
use fast_pixel_cnn::{Error, Result, cli, error, weights};

/// Convert a checkpoint of TensorFlow or PyTorch, of a PixelCNN++ or a WaveNet, to a directory of .npy weights.
///
/// Neither of them is needed. Each tensor becomes one file; model.json tells the configuration and the
/// SHA-256 of each file. The directory appears whole or not at all.
#[derive(Parser)]
#[command(version, allow_negative_numbers = true)]
struct Args {
    /// The checkpoint: a file of torch.save, a safetensors file or one TensorFlow V1 file, or the prefix of a V2
    /// (.index, .data-...) or sharded V1 checkpoint; or the directory that it is in, or TensorFlow's file
    /// `checkpoint` there, which names the latest
    checkpoint: PathBuf,

    /// The directory to make; it must not exist yet, or be empty
    #[arg(required_unless_present = "list")]
    out_dir: Option<PathBuf>,

    #[command(flatten)]
    model: cli::ModelArgs,

    /// Verify the checksums of everything in the checkpoint first, not only of what is converted; legacy PyTorch
    /// and safetensors files have none
    #[arg(long)]
    verify_all: bool,

    /// Print every variable's name, type and shape, and convert nothing
    #[arg(long, conflicts_with_all = ["out_dir", "ModelArgs", "verify_all"])]
    list: bool,
}

fn main() -> ExitCode {
    cli::run(&[("directory", "out_dir")], |args: &Args| match &args.out_dir {
        Some(out_dir) => convert(args, out_dir),
        None => list(args),
    })
}

fn list(args: &Args) -> Result<ExitCode> {
    for variable in Checkpoint::open(&args.checkpoint)?.variables() {
        cli::print(format_args!("{} {} {:?}", variable.name, variable.dtype, variable.shape))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn convert(args: &Args, out_dir: &Path) -> Result<ExitCode> {
    // A signal ends the conversion between two tensors, so that the draft of the directory is removed.
    let signals = Signals::heed()?;
    let (verified, done) = match converted(args, out_dir, &signals) {
        Err(Error::Interrupted) => {
            cli::warn("interrupted: nothing was written");
            return Ok(ExitCode::from(signals.status()));
        }
        done => done?,
    };
    done.warnings.iter().for_each(cli::warn);
    let weights = if done.source.averaged { "averaged" } else { "raw" };
    let format = done.source.format.map_or_else(String::new, |f| format!(" from a {f} checkpoint"));
    cli::print(format_args!(
        "{}: {}; {} parameters, {weights} weights{format}{}",
        out_dir.display(),
        done.config,
        done.parameters,
        verified.unwrap_or_default()
    ))?;
    Ok(ExitCode::SUCCESS)
}

/// What was verified beforehand, if that was asked for, and what was converted.
fn converted(
    args: &Args,
    out_dir: &Path,
    signals: &Signals,
) -> Result<(Option<String>, weights::Conversion)> {
    let go_on = || !signals.stop.load(Ordering::Relaxed);
    let verified = match args.verify_all {
        true => Some(verify(&mut Checkpoint::open(&args.checkpoint)?, &go_on)?),
        false => None,
    };
    Ok((verified, weights::convert(&args.checkpoint, out_dir, &args.model.options(), &|_| go_on())?))
}

/// Verifies a whole checkpoint and says what that was.
fn verify(checkpoint: &mut Checkpoint, go_on: &dyn Fn() -> bool) -> Result<String> {
    let verified = checkpoint.verify(go_on)?;
    if !verified.skipped.is_empty() {
        let names: Vec<&str> = verified.skipped.iter().map(|variable| variable.name.as_str()).collect();
        let (count, names) = (names.len(), error::list(&names, ", ", 200));
        cli::warn(format_args!("{count} variables are of types whose checksums are not known: {names}"));
    }
    Ok(format!("; all {} variables ({} bytes) verified", verified.variables, verified.bytes))
}
