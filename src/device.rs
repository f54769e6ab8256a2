//! Opens an engine by the name of a device: the one place that knows every backend.

use std::fmt;

use crate::cpu::{self, CpuEngine};
use crate::cuda::{self, CudaEngine};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::weights::Weights;

pub use crate::cuda::{Options as CudaOptions, Strategy};

/// The names that [`Device::named`] takes, for messages.
const NAMES: &str = "auto, cpu, cuda or cuda:N";

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
    pub cuda: CudaOptions,
}

impl Device {
    /// The first CUDA device if this build has CUDA and there is a driver and a device, else the processor.
    pub fn auto() -> Device {
        match cuda::count() {
            Some(1..) => Device::Cuda(0),
            _ => Device::Cpu,
        }
    }

    /// The device of a name: `auto` for [`Device::auto`], `cpu`, `cuda` for the first CUDA device, or `cuda:N`.
    ///
    /// # Errors
    /// [`Error::Argument`] for another name.
    pub fn named(name: &str) -> Result<Device> {
        let number = match name {
            "auto" => return Ok(Device::auto()),
            "cpu" => return Ok(Device::Cpu),
            "cuda" => Some(0),
            _ => name.strip_prefix("cuda:").and_then(|n| n.parse().ok()),
        };
        number.map(Device::Cuda).ok_or_else(|| Error::argument("device", NAMES, format!("\"{name}\"")))
    }

    /// The kind of device, within which outputs are the same bits: `cpu` or `cuda`.
    pub fn kind(self) -> &'static str {
        match self {
            Device::Cpu => "cpu",
            Device::Cuda(_) => "cuda",
        }
    }

    /// An engine with these weights, with the default [`Options`]: all cores, float32, the fastest strategy.
    ///
    /// # Errors
    /// As for [`Device::open_with`].
    pub fn open(self, weights: &Weights) -> Result<Box<dyn Engine>> {
        self.open_with(weights, &Options::default())
    }

    /// [`Device::open`], with a choice of how it runs.
    ///
    /// # Errors
    /// As for [`Weights::array`], since here the weights are read; [`Error::Argument`] for options that the engine
    /// refuses, [`Error::Device`] for a device that is not there or refuses, [`Error::Allocate`] and
    /// [`Error::Threads`] for what the system refuses.
    pub fn open_with(self, weights: &Weights, options: &Options) -> Result<Box<dyn Engine>> {
        Ok(match self {
            Device::Cpu => Box::new(CpuEngine::new(weights, &options.cpu)?),
            Device::Cuda(number) => Box::new(CudaEngine::new(weights, number, &options.cuda)?),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_have_names() {
        assert_eq!(Device::named("cpu").unwrap(), Device::Cpu);
        assert_eq!(Device::named("auto").unwrap(), Device::auto());
        assert_eq!(Device::named("cuda").unwrap(), Device::Cuda(0));
        assert_eq!(Device::named("cuda:3").unwrap(), Device::Cuda(3));
        for wrong in ["", "gpu", "cuda:", "cuda:-1", "cuda:x", "CPU"] {
            let error = Device::named(wrong).unwrap_err().to_string();
            assert!(error.contains(NAMES) && error.contains(wrong), "{error}");
        }
    }
}
