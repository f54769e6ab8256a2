//! Opens an engine by the name of a device: the one place that knows every backend.

use crate::cli;
use crate::cpu::{self, CpuEngine};
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

/// Opens the engine that a program's flags name, and warns where that is not what the user may expect.
///
/// # Errors
/// As for [`Device::named`] and [`Device::open`].
pub fn open(name: &str, weights: &Weights, args: &cli::EngineArgs) -> Result<Box<dyn Engine>> {
    let (device, note) = Device::named(name)?;
    note.iter().for_each(cli::warn);
    device.open(weights, &Options { cpu: args.cpu(), strategy: args.strategy })
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
}
