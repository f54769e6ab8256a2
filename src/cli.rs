//! What the programs share: how they fail, how they print, and the flags that choose weights.
//!
//! The idea: a program is a function from its arguments to an exit code; errors are one line on stderr
//! and status 2, warnings are lines on stderr, and a reader who leaves early (`| head`) is no error.

use std::fmt::Display;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::config::Nonlinearity;
use crate::cpu::{self, Precision};
use crate::cuda::Strategy;
use crate::error::{self, Error, Result};
use crate::weights::{Options, Weights};

/// The demo model, relative to the current folder or to this package.
const DEMO: &str = "models/digits";

/// Runs a program's body; an error becomes the line `error: ...` on stderr and status 2.
pub fn run(body: impl FnOnce() -> Result<ExitCode>) -> ExitCode {
    body().unwrap_or_else(|error| {
        note("error", error);
        ExitCode::from(2)
    })
}

/// The program's flags. What is wrong with them becomes one line, too, and status 2.
pub fn parse<T: clap::Parser>() -> T {
    T::try_parse().unwrap_or_else(|error| {
        if !error.use_stderr() {
            // Help and version were asked for.
            error.exit();
        }
        note("error", one_line(&error.to_string()));
        std::process::exit(2)
    })
}

/// What clap says in paragraphs: what is wrong, its tips and the usage. The usage is left out: `--help` has it.
fn one_line(said: &str) -> String {
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut paragraphs = said.split("\n\n").map(words);
    let mut line = paragraphs.next().unwrap_or_default().trim_start_matches("error: ").to_string();
    for tip in paragraphs.filter(|p| p.starts_with("tip:")) {
        line += "; ";
        line += &tip;
    }
    line + "; see --help"
}

/// Prints a line on stdout, where results go. If nobody reads it any more, that is fine.
///
/// # Errors
/// [`Error::Io`] if stdout cannot be written for another reason.
pub fn print(line: impl Display) -> Result<()> {
    match writeln!(std::io::stdout(), "{line}") {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Error::io(Path::new("stdout"), "write")(e))
        }
        _ => Ok(()),
    }
}

/// Prints the line `warning: ...` on stderr.
pub fn warn(message: impl Display) {
    note("warning", message);
}

/// One line `kind: message` on stderr, whatever a file's name brings along (line breaks, what moves a terminal's
/// cursor) and however long it is. Without a stderr there is no one to tell.
pub fn note(kind: &str, message: impl Display) {
    let message = message.to_string().replace(char::is_control, " ");
    let message = error::cut(&message, error::LINE - kind.len() - 2);
    let _ = writeln!(std::io::stderr(), "{kind}: {message}");
}

/// Prints the line `error: ...` on stderr for a check that failed, and gives the status for it, 1.
pub fn failed(message: impl Display) -> ExitCode {
    note("error", message);
    ExitCode::FAILURE
}

/// The flags that say how to compute. Each is `None` unless it was given: a device that has no use for it
/// refuses it.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct EngineArgs {
    /// Threads on the CPU, at most one for each core [default: as many as there are]
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,

    /// How the weights that every pixel reads are stored: f32, or bf16 for half the bytes. Sums are
    /// float32 either way. bf16 is for the CPU [default: f32]
    #[arg(long, value_name = "NAME", value_parser = parse_precision)]
    pub precision: Option<Precision>,

    /// How a CUDA device gets from one stage of the network to the next; the images are the same
    /// [default: auto]
    #[arg(long, value_enum, value_name = "NAME")]
    pub strategy: Option<Strategy>,
}

impl EngineArgs {
    /// The options of the engine on the processor. More threads than cores, by this process's affinity and
    /// quota, would only wait for one another, and the images are the same: they are capped, with a warning.
    pub fn cpu(&self) -> cpu::Options {
        let cores = std::thread::available_parallelism().map_or(usize::MAX, |n| n.get());
        let threads = self.threads.map(|threads| threads.min(cores));
        if let Some(asked) = self.threads.filter(|&asked| asked > cores) {
            let s = if cores == 1 { "" } else { "s" };
            warn(format_args!("--threads {asked}: this process has {cores} core{s}, which it uses"));
        }
        cpu::Options { threads, precision: self.precision.unwrap_or_default(), ..cpu::Options::default() }
    }
}

fn parse_precision(text: &str) -> std::result::Result<Precision, String> {
    let all = [Precision::F32, Precision::Bf16];
    all.into_iter().find(|p| p.name() == text).ok_or_else(|| "expected f32 or bf16".into())
}

/// The value of `--temperature`.
///
/// # Errors
/// What to write instead of a number that is none, infinite, or not above 0.
pub fn parse_temperature(text: &str) -> std::result::Result<f32, String> {
    let temperature = text.parse().ok().filter(|t: &f32| *t > 0.0 && t.is_finite());
    temperature.ok_or_else(|| "expected a finite number above 0".into())
}

/// The flags that choose the weights.
#[derive(Clone, Debug, clap::Args)]
pub struct WeightsArgs {
    /// Weights: a folder made by convert, or a checkpoint of TensorFlow or PyTorch or the folder that it is in
    /// [default: the bundled demo model]
    #[arg(short = 'c', long, value_name = "PATH")]
    pub checkpoint: Option<PathBuf>,

    /// Take a checkpoint's raw weights instead of the averaged ones
    #[arg(long)]
    pub raw: bool,

    /// The model's nonlinearity, where shapes cannot tell
    #[arg(long, value_enum, value_name = "NAME")]
    pub nonlinearity: Option<Nonlinearity>,

    /// The scope of the model's variables, where a checkpoint has several models
    #[arg(long, value_name = "NAME")]
    pub scope: Option<String>,
}

impl WeightsArgs {
    /// Loads the weights and prints their warnings.
    ///
    /// # Errors
    /// As for [`Weights::load`]; [`Error::Unsupported`] if no path was given and there is no demo model.
    pub fn load(&self) -> Result<Weights> {
        let weights = Weights::load(&self.path()?, &self.options())?;
        weights.warnings().iter().for_each(warn);
        Ok(weights)
    }

    /// The choices as the library takes them.
    pub fn options(&self) -> Options {
        Options { raw: self.raw, nonlinearity: self.nonlinearity, scope: self.scope.clone() }
    }

    /// The path given, else the demo model's: below the current folder, or in the package that this
    /// program was built from.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if no path was given and there is no demo model.
    pub fn path(&self) -> Result<PathBuf> {
        if let Some(path) = &self.checkpoint {
            return Ok(path.clone());
        }
        let places = [PathBuf::from(DEMO), Path::new(env!("CARGO_MANIFEST_DIR")).join(DEMO)];
        let found = places.iter().find(|p| p.is_dir());
        found.cloned().ok_or_else(|| Error::Unsupported {
            file: DEMO.into(),
            found: format!("the demo model is neither here nor in {}", places[1].display()),
            hint: "give weights with --checkpoint PATH".into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Program {
        #[command(flatten)]
        weights: WeightsArgs,
    }

    #[test]
    fn weights_are_those_given_or_the_demo_model() {
        let args = Program::try_parse_from(["program"]).unwrap().weights;
        let weights = args.load().unwrap();
        assert_eq!(weights.config().classes, 10);
        let args = ["program", "-c", "there", "--raw", "--nonlinearity", "relu"];
        let args = Program::try_parse_from(args).unwrap().weights;
        assert_eq!(args.path().unwrap(), Path::new("there"));
        assert!(args.options().raw && args.options().nonlinearity == Some(Nonlinearity::Relu));
        assert!(args.load().unwrap_err().to_string().starts_with("there: no such file"));
    }
}
