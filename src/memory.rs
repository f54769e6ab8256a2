//! How much memory the machine has to give, so that a batch can be refused before it is allocated, and
//! how much this process took.
//!
//! The idea: the least of what the kernel says and what the control groups around this process and its own limit
//! (`ulimit -v`) leave, read from the files in which Linux says so; on other systems nothing is known and nothing
//! refused.

use std::path::Path;

use crate::error::{Error, Result};

/// Bytes that can be allocated without swapping or being killed; `None` if the system does not say.
pub fn available() -> Option<u64> {
    let meminfo = std::fs::read_to_string("/proc/meminfo").ok()?;
    let machine = bytes_of(&meminfo, "MemAvailable:")?;
    let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let limits = group_directories(&groups).into_iter().filter_map(|f| left_in_group(Path::new(&f)));
    let read = |file| std::fs::read_to_string(file).unwrap_or_default();
    let addresses = left_of_addresses(&read("/proc/self/limits"), &read("/proc/self/status"));
    Some(limits.chain(addresses).fold(machine, u64::min))
}

/// What the process's limit of addresses leaves, from its `limits` and `status`; `None` without a limit.
fn left_of_addresses(limits: &str, status: &str) -> Option<u64> {
    let line = limits.lines().find_map(|l| l.strip_prefix("Max address space"))?;
    let limit: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(limit.saturating_sub(bytes_of(status, "VmSize:")?))
}

/// The most bytes of physical memory that this process has held at a time so far; `None` if the system does
/// not say.
pub fn peak_resident() -> Option<u64> {
    bytes_of(&std::fs::read_to_string("/proc/self/status").ok()?, "VmHWM:")
}

/// Bytes from which on it is worth asking what the machine has.
const LARGE: u64 = 1 << 24;

/// `count` zeros for what a file says that it holds. `Err` tells the bytes that there are, if these are too
/// few; nothing was allocated then.
pub fn zeros<T: bytemuck::Zeroable>(count: u64) -> std::result::Result<Vec<T>, u64> {
    let bytes = count.saturating_mul(size_of::<T>() as u64);
    let most = if bytes < LARGE { None } else { available() };
    if let Some(most) = most.filter(|most| bytes > *most) {
        return Err(most);
    }
    let count = usize::try_from(count).map_err(|_| usize::MAX as u64)?;
    bytemuck::try_zeroed_vec(count).map_err(|()| most.unwrap_or(isize::MAX as u64))
}

/// Sizes of batch up to which [`largest_batch`] tries one after the other: as many images as 64 threads make at
/// a time, and done in a second.
const TRIED: usize = 2048;

/// The largest batch of at most `size` images that fits, 0 if none does. What a batch needs may fall as it
/// grows, since an engine makes a large one in blocks of nearly equal size: 32 images at once, but 33 as 17
/// and 16. So all sizes are tried, up to 2,048; beyond it one that fits is sought by halves.
pub fn largest_batch(size: usize, fits: impl Fn(usize) -> bool) -> usize {
    if fits(size) {
        return size;
    }
    let (mut largest, mut too_many) = (TRIED, size);
    while too_many > largest + 1 {
        let middle = largest + (too_many - largest) / 2;
        if fits(middle) {
            largest = middle;
        } else {
            too_many = middle;
        }
    }
    if largest > TRIED {
        return largest;
    }
    (1..size.min(TRIED + 1)).rev().find(|&size| fits(size)).unwrap_or(0)
}

/// Whether every batch of a run fits into `available` bytes: of `count` images in batches of `size` the last one
/// may be smaller, and need more. `bytes` tells what a batch needs, and for none no more than for any.
pub fn batches_fit(available: u64, count: usize, size: usize, bytes: impl Fn(usize) -> u64) -> bool {
    [size, count % size].into_iter().all(|size| bytes(size) <= available)
}

/// Refuses a run of `count` images in batches of `size`, at least 1, that do not fit; see [`batches_fit`].
///
/// # Errors
/// [`Error::Memory`], for the batch that needs most.
pub fn check_batches(available: u64, count: usize, size: usize, bytes: impl Fn(usize) -> u64) -> Result<()> {
    let fits = largest_batch(size, |size| batches_fit(available, count, size, &bytes));
    if fits == size {
        return Ok(());
    }
    let rest = count % size;
    let batch = if bytes(rest) > bytes(size) { rest } else { size };
    Err(Error::Memory { batch, needed: bytes(batch), available, fits })
}

/// Refuses one batch of `size` images, at least 1, that does not fit.
///
/// # Errors
/// [`Error::Memory`].
pub fn check_batch(available: u64, size: usize, bytes: impl Fn(usize) -> u64) -> Result<()> {
    check_batches(available, size, size, bytes)
}

/// An entry of `/proc/meminfo` or of a process's `status`, in bytes.
fn bytes_of(text: &str, entry: &str) -> Option<u64> {
    let line = text.lines().find_map(|l| l.strip_prefix(entry))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

/// The directories of the process's memory control group and those around it, from `/proc/self/cgroup`:
/// version 2 (`0::/a/b`) and version 1 (`4:memory:/a/b`), whose own directory a container sees as the root.
fn group_directories(groups: &str) -> Vec<String> {
    let mut directories = Vec::new();
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (root, path) = match (fields.next(), fields.next()) {
            (Some(""), Some(path)) => ("/sys/fs/cgroup", path),
            (Some(names), Some(path)) if names.split(',').any(|n| n == "memory") => {
                ("/sys/fs/cgroup/memory", path)
            }
            _ => continue,
        };
        let around = Path::new(path).ancestors().filter_map(Path::to_str);
        directories.extend(around.map(|path| format!("{root}{}", path.trim_end_matches('/'))));
    }
    directories
}

/// What a control group's limit leaves, page cache that can be dropped counted as free; `None` without
/// a limit.
fn left_in_group(directory: &Path) -> Option<u64> {
    let number = |name: &str| {
        let text = std::fs::read_to_string(directory.join(name)).ok()?;
        text.trim().parse::<u64>().ok()
    };
    let limit = number("memory.max").or_else(|| number("memory.limit_in_bytes"))?;
    let used = number("memory.current").or_else(|| number("memory.usage_in_bytes"))?;
    let statistics = std::fs::read_to_string(directory.join("memory.stat")).unwrap_or_default();
    let entry = |wanted: &str| {
        let bytes =
            statistics.lines().filter_map(|line| line.split_once(' ')).find(|(name, _)| *name == wanted);
        bytes.and_then(|(_, bytes)| bytes.parse::<u64>().ok())
    };
    // Version 1 counts the groups below under the first name.
    let cache = entry("total_inactive_file").or_else(|| entry("inactive_file"));
    Some(limit.saturating_sub(used.saturating_sub(cache.unwrap_or(0))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_s_figure_is_in_bytes() {
        let meminfo = "MemTotal:  100 kB\nMemAvailable:    5242880 kB\nBuffers: 1 kB\n";
        let available = |text| bytes_of(text, "MemAvailable:");
        assert_eq!(available(meminfo), Some(5 << 30));
        assert_eq!(available("MemTotal: 100 kB\n"), None);
        assert_eq!(available("MemAvailable: lots\n"), None);
        assert_eq!(bytes_of("VmPeak:\t 3 kB\nVmHWM:\t       2 kB\n", "VmHWM:"), Some(2048));
    }

    #[test]
    fn a_limit_of_addresses_less_those_in_use_is_left() {
        let limits = |limit: &str| {
            format!("Limit  Soft Limit  Hard Limit  Units\nMax address space  {limit}  unlimited  bytes\n")
        };
        let left = |limit, status| left_of_addresses(&limits(limit), status);
        assert_eq!(left("unlimited", "VmSize:\t 3 kB\n"), None);
        assert_eq!(left("5000", "VmSize:\t 3 kB\n"), Some(5000 - 3072));
        assert_eq!(left("5000", "VmSize:\t 6 kB\n"), Some(0));
        assert_eq!(left_of_addresses("", ""), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_peak_rises_with_what_is_touched_and_stays() {
        let before = peak_resident().unwrap();
        drop(std::hint::black_box(vec![1u8; 256 << 20]));
        assert!((256 << 20..before + (512 << 20)).contains(&peak_resident().unwrap()));
    }

    #[test]
    fn what_is_advised_fits_and_of_the_sizes_tried_it_is_the_largest() {
        // Any shape of need, as from an engine that generates a fixed number of images at a time.
        let needs: [fn(usize) -> bool; 5] =
            [|n| n < 5000, |n| n % 100 == 7, |n| n == 99 || n <= 75, |n| n > 3000, |_| false];
        for fits in needs {
            for size in [1, 2, 7, 99, 107, 500, TRIED - 1, TRIED, TRIED + 1, 4 * TRIED, usize::MAX] {
                let advised = largest_batch(size, fits);
                assert!(advised <= size && (advised == 0 || fits(advised)), "{advised} of {size}");
                let best = (1..=size.min(TRIED)).rev().find(|&n| fits(n)).unwrap_or(0);
                assert!(advised == best || advised > TRIED, "{advised} of {size}, not {best}");
            }
        }
        assert_eq!(largest_batch(usize::MAX, needs[0]), 4999);
    }

    #[test]
    fn a_last_batch_that_needs_more_is_refused_too() {
        // 32 at once, but 33 as 17 and 16.
        let bytes = |n: usize| n.div_ceil(n.div_ceil(32).max(1)) as u64;
        let fits = |count, size| batches_fit(20, count, size, bytes);
        assert!(fits(40, 40) && fits(45, 40) && !fits(70, 40) && !fits(32, 32));
        match check_batches(20, 70, 40, bytes) {
            Err(Error::Memory { batch: 30, needed: 30, available: 20, fits: 37 }) => {}
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn groups_of_both_versions_are_followed_outwards() {
        let groups = "9:name=systemd:/\n4:cpu,memory:/a\n0::/b/c\n";
        assert_eq!(
            group_directories(groups),
            [
                "/sys/fs/cgroup/memory/a",
                "/sys/fs/cgroup/memory",
                "/sys/fs/cgroup/b/c",
                "/sys/fs/cgroup/b",
                "/sys/fs/cgroup"
            ]
        );
    }

    #[test]
    fn a_group_s_limit_less_its_use_is_left() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(directory.path().join(name), text).unwrap();
        assert_eq!(left_in_group(directory.path()), None);
        write("memory.max", "max\n");
        write("memory.current", "700\n");
        assert_eq!(left_in_group(directory.path()), None);
        write("memory.max", "1000\n");
        assert_eq!(left_in_group(directory.path()), Some(300));
        write("memory.stat", "anon 600\ninactive_file 50\n");
        assert_eq!(left_in_group(directory.path()), Some(350));
        write("memory.current", "2000\n");
        assert_eq!(left_in_group(directory.path()), Some(0));
    }
}
