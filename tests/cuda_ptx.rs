//! The PTX that is embedded, for drivers old and new: it states the lowest version that will do, and assemblers of
//! several years take it for every device of theirs.
//!
//! The idea: a driver compiles PTX with the ptxas of its own year. So ptxas stands for drivers that are not here:
//! those that `tools/install-ptxas.sh` has put into `.ptxas/`, or else the one beside nvcc.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

/// Generations of devices, and the first release of ptxas that knows them.
const DEVICES: [(&str, u32); 10] = [
    ("sm_75", 11),
    ("sm_80", 11),
    ("sm_86", 11),
    ("sm_89", 12),
    ("sm_90", 12),
    ("sm_100", 13),
    ("sm_103", 13),
    ("sm_110", 13),
    ("sm_120", 13),
    ("sm_121", 13),
];

/// Whether a file is for devices with clusters: those of compute capability 9.0 and later, by drivers for CUDA 12.1 and later.
fn has_clusters(file: &Path) -> bool {
    let name = file.file_stem().unwrap().to_str().unwrap();
    ["cluster", "masked_conv_spread"].iter().any(|begin| name.starts_with(begin))
}

/// Whether a device has them.
fn knows_clusters(device: &str) -> bool {
    device.trim_start_matches("sm_").parse::<u32>().unwrap() >= 90
}

/// The PTX files of this build.
fn ptx() -> Vec<PathBuf> {
    let files = std::fs::read_dir(env!("PTX_DIRECTORY")).unwrap().map(|file| file.unwrap().path());
    let mut files: Vec<_> = files.filter(|file| file.extension().is_some_and(|e| e == "ptx")).collect();
    // A file whose source is gone lies there until the next clean build.
    files.retain(|file| Path::new("cuda").join(file.file_stem().unwrap()).with_extension("cu").is_file());
    files.sort();
    files
}

/// The ptxas that were fetched, or else the one beside nvcc, with the numbers of their releases.
fn assemblers() -> Vec<(PathBuf, u32)> {
    let fetched = std::fs::read_dir(".ptxas").into_iter().flatten();
    let mut found: Vec<_> = fetched.map(|directory| directory.unwrap().path().join("ptxas")).collect();
    if found.is_empty() {
        println!("not tried with an old and the newest ptxas: tools/install-ptxas.sh fetches them");
        found.push(Path::new(env!("NVCC_USED")).with_file_name("ptxas"));
    }
    found.sort();
    let release = |ptxas: PathBuf| {
        let output = Command::new(&ptxas).arg("--version").output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let release = text.split("release ").nth(1).unwrap().split('.').next().unwrap();
        (ptxas, release.parse().unwrap())
    };
    found.into_iter().map(release).collect()
}

#[test]
fn the_lowest_version_is_stated() {
    if option_env!("CUDA_ARCH").is_some() {
        println!("not run: built for the devices of CUDA_ARCH");
        return;
    }
    assert!(ptx().len() >= 6, "{:?}", ptx());
    for file in ptx() {
        let text = std::fs::read_to_string(&file).unwrap();
        let version = text.lines().find_map(|line| line.strip_prefix(".version "));
        let lowest = if has_clusters(&file) { "8.1" } else { "7.0" };
        assert_eq!(version, Some(lowest), "{}", file.display());
        // Nsight finds the source by these.
        assert!(text.contains("\t.loc\t"), "{} has no line information", file.display());
    }
}

#[test]
fn assemblers_old_and_new_take_it_for_every_device() {
    let out = tempfile::tempdir().unwrap();
    println!("| ptxas | device | all files for float32, one after the other | the longest |");
    println!("| --- | --- | ---: | ---: |");
    for (ptxas, release) in assemblers() {
        for (i, (device, _)) in DEVICES.into_iter().filter(|(_, since)| *since <= release).enumerate() {
            let mut seconds = Vec::new();
            for file in ptx() {
                if has_clusters(&file) && !knows_clusters(device) {
                    continue;
                }
                // A kernel for bfloat16 has a load and a shift more than float32's: it is tried for the oldest device.
                let narrow = file.to_str().unwrap().ends_with("_bf16.ptx");
                let oldest = if has_clusters(&file) { device == "sm_90" } else { i == 0 };
                if narrow && !oldest {
                    continue;
                }
                let start = Instant::now();
                let mut command = Command::new(&ptxas);
                // As the driver does it: optimised, with line information.
                command.args(["-O3", "--generate-line-info", "-arch", device]).arg("-o");
                let output = command.arg(out.path().join("cubin")).arg(&file).output().unwrap();
                let said = String::from_utf8_lossy(&output.stderr).into_owned();
                assert!(output.status.success(), "{} {device} {}: {said}", ptxas.display(), file.display());
                if !narrow {
                    seconds.push(start.elapsed().as_secs_f64());
                }
            }
            let (sum, longest) = (seconds.iter().sum::<f64>(), seconds.iter().copied().fold(0.0, f64::max));
            println!("| {} | {device} | {sum:.2} s | {longest:.2} s |", ptxas.display());
        }
    }
}
