//! What the programs share: how they fail, how they print, and the flags that choose weights.
//!
//! The idea: a program is a function from its arguments to an exit code; errors are one line on stderr
//! and status 2, warnings are lines on stderr, and a reader who leaves early (`| head`) is no error.

pub mod signals;

use std::fmt::Display;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{ArgMatches, Command, ValueHint};

use crate::cpu;
use crate::cuda::{self, Strategy};
use crate::device::{self, Device};
use crate::engine::Engine;
use crate::error::{self, Error, Result};
use crate::models::Nonlinearity;
use crate::precision::Precision;
use crate::weights::{Options, Weights};

/// The demo model, relative to the current directory or to this package.
const DEMO: &str = "models/digits";

/// A program: its flags, given to its body. What is wrong with them, or comes out of the body, becomes the line
/// `error: ...` on stderr, and status 2.
///
/// An error's argument is told as the flag of the same name. Where the program calls it otherwise, `names` has the
/// library's name and the program's: `("class", "labels")`.
pub fn run<T: clap::Parser>(names: &[(&str, &str)], body: impl FnOnce(&T) -> Result<ExitCode>) -> ExitCode {
    let mut command = T::command();
    let parsed = command.try_get_matches_from_mut(std::env::args_os());
    let parsed = parsed.and_then(|matches| Ok((T::from_arg_matches(&matches)?, matches)));
    let (args, matches) = match parsed {
        Ok(parsed) => parsed,
        // Help and version were asked for.
        Err(error) if !error.use_stderr() => error.exit(),
        Err(error) => {
            note("error", one_line(&error.to_string()));
            return ExitCode::from(2);
        }
    };
    body(&args).unwrap_or_else(|error| {
        note("error", error.renamed(|name| flag(name, names, &command, &matches)));
        ExitCode::from(2)
    })
}

/// How the user gave what the library calls `name`: `--threads`, `--labels FILE` with the file's name, `OUT_DIR`;
/// what no flag stands for stays as it is.
fn flag(name: &str, names: &[(&str, &str)], command: &Command, matches: &ArgMatches) -> String {
    let own = names.iter().find(|(library, _)| *library == name);
    let id = own.map_or_else(|| name.replace(' ', "_"), |(_, own)| own.to_string());
    let Some(arg) = command.get_arguments().find(|arg| arg.get_id() == id.as_str()) else {
        return name.into();
    };
    let Some(long) = arg.get_long() else {
        return arg.get_value_names().map_or(id, |names| names.join(" "));
    };
    let file = (arg.get_value_hint() == ValueHint::AnyPath).then(|| matches.get_raw(&id)?.next()).flatten();
    file.map_or_else(|| format!("--{long}"), |file| format!("--{long} {}", file.display()))
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

/// The flags that say where and how to compute. Those of one device are `None` unless they were given: the other
/// refuses them.
#[derive(Clone, Debug, clap::Args)]
pub struct EngineArgs {
    /// Where to run: auto, cpu, cuda or cuda:N
    #[arg(long, value_name = "NAME", default_value = "auto")]
    pub device: String,

    /// Threads on the CPU, at most one for each core [default: as many as there are]
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,

    /// How the weights that every pixel reads are stored: f32, or bf16 for half the bytes. Sums are
    /// float32 either way [default: f32]
    #[arg(long, value_name = "NAME", value_parser = one_of(&Precision::ALL, Precision::name))]
    pub precision: Option<Precision>,

    /// How a CUDA device gets from one stage of the network to the next: by a launch for each, a graph for each
    /// phase, or, for the pixels of a row, one persistent launch, of clusters (compute capability 9.0 and later), or
    /// of teams of blocks, the latter for many samples of a sound; the images are the same [default: auto]
    #[arg(long, value_name = "NAME", value_parser = one_of(&Strategy::ALL, Strategy::name))]
    pub strategy: Option<Strategy>,
}

impl EngineArgs {
    /// The device that is named; warns where that is not what the user may expect.
    ///
    /// # Errors
    /// As for [`Device::named`]; [`Error::Argument`] for a flag that this device has no use for.
    pub fn device(&self) -> Result<Device> {
        let device = Device::named(&self.device)?;
        self.check(device)?;
        if self.device == "auto" && device == Device::Cpu && cuda::BUILT {
            warn("no CUDA device was found: running on the processor");
        }
        Ok(device)
    }

    /// Refuses a flag that the device would ignore. What a flag is when it is not given is no one's wish.
    fn check(&self, device: Device) -> Result<()> {
        let refuse = |flag, wanted| Err(only_for(flag, wanted, device));
        match device {
            Device::Cpu if self.strategy.is_some() => refuse("--strategy", "a CUDA device"),
            Device::Cuda(_) if self.threads.is_some() => refuse("--threads", "--device cpu"),
            Device::Cpu | Device::Cuda(_) => Ok(()),
        }
    }

    /// Opens an engine with these weights.
    ///
    /// # Errors
    /// As for [`EngineArgs::device`] and [`Device::open_with`].
    pub fn open(&self, weights: &Weights) -> Result<Box<dyn Engine>> {
        // First, since a device that refuses a flag has no warning to give of it.
        let device = self.device()?;
        device.open_with(weights, &device::Options { cpu: self.cpu(), cuda: self.cuda() })
    }

    /// The options of the engine on a CUDA device.
    pub fn cuda(&self) -> cuda::Options {
        let (strategy, precision) = (self.strategy.unwrap_or_default(), self.precision.unwrap_or_default());
        cuda::Options { strategy, precision }
    }

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

/// A flag's refusal where what it is for is not what the program runs on.
pub fn only_for(flag: &str, wanted: &str, device: Device) -> Error {
    Error::refused(flag, format!("only for {wanted}; this runs on {device}"))
}

/// The parser of a flag whose value is one of `all`, each by its name.
fn one_of<T: Copy + Send + Sync + 'static>(
    all: &'static [T],
    name: fn(T) -> &'static str,
) -> impl TypedValueParser<Value = T> {
    let named =
        move |text: String| *all.iter().find(|&&value| name(value) == text).expect("one of the names");
    PossibleValuesParser::new(all.iter().map(|&value| name(value))).map(named)
}

/// The value of `--temperature`.
///
/// # Errors
/// What to write instead of a number that is none, infinite, or not above 0.
pub fn parse_temperature(text: &str) -> std::result::Result<f32, String> {
    let temperature = text.parse().ok().filter(|t: &f32| *t > 0.0 && t.is_finite());
    temperature.ok_or_else(|| "expected a finite number above 0".into())
}

/// The flags that say which of a checkpoint's weights are meant, and of which model.
#[derive(Clone, Debug, clap::Args)]
pub struct ModelArgs {
    /// Take a checkpoint's raw weights instead of the averaged ones
    #[arg(long)]
    pub raw: bool,

    /// The model's nonlinearity, where shapes cannot tell [default: as config.json beside the checkpoint says; else
    /// concat_elu where channels double, else elu]
    #[arg(long, value_name = "NAME", value_parser = one_of(&Nonlinearity::ALL, Nonlinearity::name))]
    pub nonlinearity: Option<Nonlinearity>,

    /// Where a checkpoint has several models, the scope of the one's variables, or its key in a file of PyTorch's:
    /// "model" for model/conv2d_0/V, "ema" for ema.u_init.conv.bias
    #[arg(long, value_name = "NAME")]
    pub scope: Option<String>,

    /// A WaveNet's description, with the dilations and the sample rate that its checkpoint does not tell
    /// [default: wavenet_params.json beside the checkpoint]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::AnyPath)]
    pub params: Option<PathBuf>,
}

impl ModelArgs {
    /// The choices as the library takes them.
    pub fn options(&self) -> Options {
        Options {
            raw: self.raw,
            nonlinearity: self.nonlinearity,
            scope: self.scope.clone(),
            params: self.params.clone(),
        }
    }

    /// Loads the weights at a path and prints their warnings.
    ///
    /// # Errors
    /// As for [`Weights::load_with`].
    pub fn load(&self, path: &Path) -> Result<Weights> {
        let weights = Weights::load_with(path, &self.options())?;
        weights.warnings().iter().for_each(warn);
        Ok(weights)
    }
}

/// The flags that choose the weights.
#[derive(Clone, Debug, clap::Args)]
pub struct WeightsArgs {
    /// Weights: a directory made by convert, or a checkpoint of TensorFlow or PyTorch or the directory that it is in
    /// [default: the bundled demo model]
    #[arg(short = 'c', long, value_name = "PATH")]
    pub checkpoint: Option<PathBuf>,

    /// Which of a checkpoint's.
    #[command(flatten)]
    pub model: ModelArgs,
}

impl WeightsArgs {
    /// Loads the weights and prints their warnings.
    ///
    /// # Errors
    /// As for [`Weights::load_with`]; [`Error::Unsupported`] if no path was given and there is no demo model.
    pub fn load(&self) -> Result<Weights> {
        self.model.load(&self.path()?)
    }

    /// The path given, else the demo model's: below the current directory, or in the package that this
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
        #[command(flatten)]
        engine: EngineArgs,
    }

    #[test]
    fn a_device_refuses_the_flags_that_it_would_ignore() {
        for (device, flag, refused) in [
            (Device::Cpu, None, None),
            (Device::Cpu, Some("--threads=2"), None),
            (Device::Cpu, Some("--precision=f32"), None),
            (Device::Cpu, Some("--precision=bf16"), None),
            (
                Device::Cpu,
                Some("--strategy=auto"),
                Some("--strategy: only for a CUDA device; this runs on the processor"),
            ),
            (Device::Cuda(1), None, None),
            (
                Device::Cuda(1),
                Some("--threads=2"),
                Some("--threads: only for --device cpu; this runs on cuda:1"),
            ),
            (Device::Cuda(1), Some("--precision=f32"), None),
            (Device::Cuda(1), Some("--precision=bf16"), None),
            (Device::Cuda(1), Some("--strategy=auto"), None),
        ] {
            let args = Program::try_parse_from([Some("program"), flag].into_iter().flatten()).unwrap();
            let found = args.engine.check(device).err().map(|error| error.to_string());
            assert_eq!(found.as_deref(), refused);
        }
    }

    #[test]
    fn weights_are_those_given_or_the_demo_model() {
        let args = Program::try_parse_from(["program"]).unwrap().weights;
        let weights = args.load().unwrap();
        assert_eq!(weights.graph().classes, 10);
        let args = ["program", "-c", "there", "--raw", "--nonlinearity", "relu"];
        let args = Program::try_parse_from(args).unwrap().weights;
        assert_eq!(args.path().unwrap(), Path::new("there"));
        assert!(args.model.raw && args.model.nonlinearity == Some(Nonlinearity::Relu));
        assert!(args.load().unwrap_err().to_string().starts_with("there: no such file"));
    }
}
