//! The devices that the virtual GPU can be.
//!
//! The idea: what a program can ask of a device, as a table of a few real ones' data sheets, and overrides from the
//! environment, so that a test can have a small or a poor device.
//!
//! | variable | what it sets |
//! | --- | --- |
//! | `VGPU_DEVICE` | `k40`, `v100`, `a100` or `h100`, which is the default |
//! | `VGPU_MEMORY` | bytes of memory |
//! | `VGPU_MULTIPROCESSORS` | multiprocessors |
//! | `VGPU_COOPERATIVE` | 0 or 1: whether there are cooperative launches |
//! | `VGPU_DRIVER_VERSION` | the CUDA version that the driver knows: 13000 |

use std::env;

use crate::exec::Limits;

/// A device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// As `cuDeviceGetName` tells.
    pub name: String,
    /// Compute capability. K40 and V100 are older than anything CUDA 13 compiles for; they keep their
    /// residency limits and pass for 7.5, of which a K40 has the 64 KiB of shared memory.
    pub capability: (u32, u32),
    /// What a multiprocessor holds.
    pub limits: Limits,
    /// Bytes of shared memory that a block may have without opting in.
    pub shared_per_block: u32,
    /// Bytes of the second-level cache.
    pub l2: u32,
    /// Bytes of memory.
    pub memory: u64,
    /// Clock of the multiprocessors, in kHz.
    pub clock: u32,
    /// Clock of the memory, in kHz.
    pub memory_clock: u32,
    /// Bits of the memory's bus.
    pub bus_bits: u32,
    /// Whether there are cooperative launches.
    pub cooperative: bool,
    /// The CUDA version that the driver knows: 1000 * major + 10 * minor.
    pub driver_version: u32,
}

/// One row of the table: name, capability, multiprocessors, blocks, threads and KiB of shared memory of a
/// multiprocessor, KiB of a block opted in, KiB that the system takes of a block, MiB of second-level cache,
/// GiB of memory, clocks in MHz, bits of the bus, cooperative launches.
type Row = (&'static str, (u32, u32), u32, u32, u32, u32, u32, u32, u32, u64, u32, u32, u32, bool);

const TABLE: [(&str, Row); 4] = [
    ("k40", ("K40", (7, 5), 15, 16, 2048, 64, 64, 0, 1, 12, 745, 3004, 384, false)),
    ("v100", ("V100", (7, 5), 80, 32, 2048, 96, 96, 0, 6, 16, 1530, 877, 4096, true)),
    ("a100", ("A100", (8, 0), 108, 32, 2048, 164, 163, 1, 40, 80, 1410, 1593, 5120, true)),
    ("h100", ("H100", (9, 0), 132, 32, 2048, 228, 227, 1, 50, 80, 1980, 2619, 5120, true)),
];

/// The CUDA version that a driver knows unless told otherwise.
const DRIVER_VERSION: u32 = 13_000;

impl Device {
    /// The device of that name in the table.
    pub fn named(name: &str) -> Option<Device> {
        let (_, row) = TABLE.iter().find(|(n, _)| *n == name)?;
        let &(
            name,
            capability,
            multiprocessors,
            blocks,
            threads,
            shared,
            block,
            reserved,
            l2,
            gib,
            clock,
            mem,
            bus,
            coop,
        ) = row;
        let limits = Limits {
            multiprocessors,
            max_threads_per_block: 1024,
            max_blocks_per_multiprocessor: blocks,
            max_threads_per_multiprocessor: threads,
            shared_per_multiprocessor: shared << 10,
            shared_per_block: block << 10,
            reserved_shared_per_block: reserved << 10,
            registers_per_multiprocessor: 65_536,
            registers_per_thread: 255,
        };
        Some(Device {
            name: format!("Virtual {name} (vgpu)"),
            capability,
            limits,
            shared_per_block: 48 << 10,
            l2: l2 << 20,
            memory: gib << 30,
            clock: clock * 1000,
            memory_clock: mem * 1000,
            bus_bits: bus,
            cooperative: coop,
            driver_version: DRIVER_VERSION,
        })
    }

    /// The device that the environment asks for.
    ///
    /// # Errors
    /// A sentence that names the variable.
    pub fn from_environment() -> Result<Device, String> {
        let name = env::var("VGPU_DEVICE").unwrap_or_else(|_| "h100".into());
        let device = Device::named(&name);
        let mut device =
            device.ok_or_else(|| format!("VGPU_DEVICE: expected k40, v100, a100 or h100, found {name:?}"))?;
        if let Some(bytes) = number("VGPU_MEMORY")? {
            device.memory = bytes;
        }
        if let Some(n) = number("VGPU_MULTIPROCESSORS")? {
            device.limits.multiprocessors = u32::try_from(n).unwrap_or(u32::MAX).max(1);
        }
        if let Some(n) = number("VGPU_COOPERATIVE")? {
            device.cooperative = n != 0;
        }
        if let Some(n) = number("VGPU_DRIVER_VERSION")? {
            device.driver_version = u32::try_from(n).unwrap_or(u32::MAX);
        }
        Ok(device)
    }

    /// The newest PTX version that the driver knows: CUDA 12.n has PTX 8.n, 13.n has 9.n, 11.n has 7.n.
    pub fn ptx_version(&self) -> (u32, u32) {
        let (major, minor) = (self.driver_version / 1000, self.driver_version % 1000 / 10);
        match major {
            10 => (6, minor + 3),
            _ => (major.saturating_sub(4), minor),
        }
    }

    /// Whether there are clusters.
    pub fn clusters(&self) -> bool {
        self.capability >= (9, 0)
    }

    /// Whether a launch may begin before the one before it has ended.
    pub fn dependent_launches(&self) -> bool {
        self.capability >= (9, 0)
    }

    /// Whether such a launch can be captured, which drivers learned later.
    pub fn captures_dependent_launches(&self) -> bool {
        self.driver_version >= 12_030
    }

    /// The answer to `cuDeviceGetAttribute`, if the attribute is known; numbers as in `cuda.h`.
    pub fn attribute(&self, attribute: u32) -> Option<i32> {
        let limits = &self.limits;
        let value = match attribute {
            1 => limits.max_threads_per_block,
            2 | 3 => 1024,
            4 => 64,
            5 => i32::MAX as u32,
            6 | 7 => 65_535,
            8 => self.shared_per_block,
            9 => 64 << 10,
            10 => 32,
            11 => i32::MAX as u32,
            12 => limits.registers_per_multiprocessor,
            13 => self.clock,
            14 => 512,
            // Overlap, concurrent kernels, unified addressing, streams with priorities.
            15 | 31 | 41 | 78 => 1,
            16 => limits.multiprocessors,
            36 => self.memory_clock,
            37 => self.bus_bits,
            38 => self.l2,
            39 => limits.max_threads_per_multiprocessor,
            40 => 2,
            75 => self.capability.0,
            76 => self.capability.1,
            81 => limits.shared_per_multiprocessor,
            82 => limits.registers_per_multiprocessor,
            95 => u32::from(self.cooperative),
            97 => limits.shared_per_block,
            120 => u32::from(self.clusters()),
            106 => limits.max_blocks_per_multiprocessor,
            111 => limits.reserved_shared_per_block,
            // Everything else that exists: this device has none of it.
            17..=200 => 0,
            _ => return None,
        };
        Some(value as i32)
    }
}

/// A number from the environment.
pub fn number(variable: &str) -> Result<Option<u64>, String> {
    match env::var(variable) {
        Err(_) => Ok(None),
        Ok(text) => match text.parse() {
            Ok(number) => Ok(Some(number)),
            Err(_) => Err(format!("{variable}: expected a number, found {text:?}")),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_device_answers_for_its_shape() {
        for (name, row) in TABLE {
            let device = Device::named(name).unwrap();
            assert_eq!(device.attribute(16), Some(row.2 as i32));
            assert_eq!(device.attribute(95), Some(i32::from(name != "k40")));
            assert!(device.attribute(1_000_000).is_none());
        }
        assert!(Device::named("tpu").is_none());
    }

    #[test]
    fn a_driver_knows_the_ptx_of_its_own_version() {
        let with = |driver_version| Device { driver_version, ..Device::named("h100").unwrap() }.ptx_version();
        assert_eq!([with(11_040), with(12_090), with(13_000)], [(7, 4), (8, 9), (9, 0)]);
        assert_eq!(with(10_020), (6, 5));
    }
}
