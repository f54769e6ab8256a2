//! Opens an engine by the name of a device: the one place that knows every backend.

use std::fmt;

use crate::cli;
use crate::cpu::{self, CpuEngine, Precision};
use crate::cuda::{self, CudaEngine, Strategy};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::weights::Weights;

/// The names that [`Device::named`] takes.
pub const NAMES: &str = "auto, cpu, cuda or cuda:N";

/// Where to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Device {
    /// The processor.
    Cpu,
    /// The CUDA device of that number, as the driver counts.
    Cuda(u32),
}

/// How to run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// On the processor.
    pub cpu: cpu::Options,
    /// On a CUDA device.
    pub strategy: Strategy,
}

impl Device {
    /// The device of a name. `auto` is the first CUDA device if this build has CUDA and there is a driver
    /// and a device, else the processor; the note says so where a CUDA build has to do without.
    ///
    /// # Errors
    /// [`Error::Argument`] for another name.
    pub fn named(name: &str) -> Result<(Device, Option<&'static str>)> {
        let number = match name {
            "cpu" => return Ok((Device::Cpu, None)),
            "auto" => {
                return Ok(match cuda::count() {
                    Some(n) if n > 0 => (Device::Cuda(0), None),
                    _ if cuda::BUILT => {
                        (Device::Cpu, Some("no CUDA device was found: running on the processor"))
                    }
                    _ => (Device::Cpu, None),
                });
            }
            "cuda" => Some(0),
            _ => name.strip_prefix("cuda:").and_then(|n| n.parse().ok()),
        };
        let number = number.ok_or_else(|| Error::argument("--device", NAMES, format!("\"{name}\"")))?;
        Ok((Device::Cuda(number), None))
    }

    /// An engine with these weights.
    ///
    /// # Errors
    /// What the engine refuses.
    pub fn open(self, weights: &Weights, options: &Options) -> Result<Box<dyn Engine>> {
        Ok(match self {
            Device::Cpu => Box::new(CpuEngine::new(weights, &options.cpu)?),
            Device::Cuda(number) => Box::new(CudaEngine::new(weights, number, options.strategy)?),
        })
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Device::Cpu => f.write_str("the processor"),
            Device::Cuda(number) => write!(f, "cuda:{number}"),
        }
    }
}

/// The device that a program's flags name; warns where that is not what the user may expect.
///
/// # Errors
/// As for [`Device::named`]; [`Error::Argument`] for a flag that this device has no use for.
pub fn choose(name: &str, args: &cli::EngineArgs) -> Result<Device> {
    let (device, note) = Device::named(name)?;
    check(device, args)?;
    note.iter().for_each(cli::warn);
    Ok(device)
}

/// Refuses a flag that the device would ignore. What a flag is when it is not given is no one's wish.
fn check(device: Device, args: &cli::EngineArgs) -> Result<()> {
    let refuse = |flag: &str, wanted: &str| {
        Err(Error::argument(flag, wanted, format!("{device} as the device to run on")))
    };
    match device {
        Device::Cpu if args.strategy.is_some() => refuse("--strategy", "a CUDA device"),
        Device::Cuda(_) if args.threads.is_some() => refuse("--threads", "--device cpu"),
        // float32 is what a CUDA device does.
        Device::Cuda(_) if args.precision == Some(Precision::Bf16) => {
            refuse("--precision bf16", "--device cpu")
        }
        Device::Cpu | Device::Cuda(_) => Ok(()),
    }
}

/// Opens the engine that a program's flags name.
///
/// # Errors
/// As for [`choose`] and [`Device::open`].
pub fn open(name: &str, weights: &Weights, args: &cli::EngineArgs) -> Result<Box<dyn Engine>> {
    // First, since a device that refuses a flag has no warning to give of it.
    let device = choose(name, args)?;
    let options = Options { cpu: args.cpu(), strategy: args.strategy.unwrap_or_default() };
    device.open(weights, &options)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_have_names() {
        assert_eq!(Device::named("cpu").unwrap(), (Device::Cpu, None));
        assert_eq!(Device::named("cuda").unwrap().0, Device::Cuda(0));
        assert_eq!(Device::named("cuda:3").unwrap().0, Device::Cuda(3));
        for wrong in ["", "gpu", "cuda:", "cuda:-1", "cuda:x", "CPU"] {
            let error = Device::named(wrong).unwrap_err().to_string();
            assert!(error.contains(NAMES) && error.contains(wrong), "{error}");
        }
    }

    #[test]
    fn a_device_refuses_the_flags_that_it_would_ignore() {
        let none = cli::EngineArgs { threads: None, precision: None, strategy: None };
        let threads = cli::EngineArgs { threads: Some(2), ..none };
        let [f32, bf16] = [Precision::F32, Precision::Bf16]
            .map(|precision| cli::EngineArgs { precision: Some(precision), ..none });
        let auto = cli::EngineArgs { strategy: Some(Strategy::Auto), ..none };
        for (device, args, refused) in [
            (Device::Cpu, none, None),
            (Device::Cpu, threads, None),
            (Device::Cpu, f32, None),
            (Device::Cpu, bf16, None),
            (Device::Cpu, auto, Some("--strategy: expected a CUDA device, found the processor")),
            (Device::Cuda(1), none, None),
            (Device::Cuda(1), threads, Some("--threads: expected --device cpu, found cuda:1")),
            (Device::Cuda(1), f32, None),
            (Device::Cuda(1), bf16, Some("--precision bf16: expected --device cpu, found cuda:1")),
            (Device::Cuda(1), auto, None),
        ] {
            let found = check(device, &args).err().map(|error| error.to_string());
            let expected = refused.map(|words| format!("{words} as the device to run on"));
            assert_eq!(found, expected);
        }
    }
}
