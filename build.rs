//! Compiles `cuda/*.cu` to PTX, and only with the feature `cuda`.
//!
//! The idea: the engine embeds the PTX text, which the driver compiles for whatever device it finds. So a
//! build needs nvcc but no GPU, and one file list: every `.cu` in `cuda/`.

use std::path::{Path, PathBuf};
use std::process::{Command, exit};
use std::{env, fs};

/// The oldest devices that CUDA 13 compiles for.
const ARCH: &str = "compute_75";
/// How the names of files begin that are for younger devices, those that have clusters; and the lowest version of PTX for what
/// they use.
const CLUSTERS: [&str; 2] = ["cluster", "masked_conv_spread"];
const CLUSTER_ARCH: u32 = 90;
const CLUSTER_PTX: (u32, u32) = (8, 1);
/// The lowest version of PTX that has all that the others use: that of CUDA 11.0, which drivers know from 450 on.
/// `tests/cuda_resources.rs` has assemblers of several versions read what is built.
const PTX: (u32, u32) = (7, 0);
/// The version of PTX that brought each target which came later.
const TARGETS: [(u32, (u32, u32)); 11] = [
    (86, (7, 1)),
    (87, (7, 4)),
    (89, (7, 8)),
    (90, (7, 8)),
    (100, (8, 6)),
    (101, (8, 6)),
    (120, (8, 7)),
    (103, (8, 8)),
    (121, (8, 8)),
    (88, (9, 0)),
    (110, (9, 0)),
];
/// `--fmad=false`: where a multiply-add is to be fused, the kernels say so, so that the bits do not depend
/// on the compiler.
const FLAGS: [&str; 5] = ["-ptx", "-O3", "-std=c++17", "--fmad=false", "-lineinfo"];
/// Where toolkits are put: by NVIDIA's installers, by Arch and Gentoo, by Debian and Ubuntu.
const TOOLKITS: [&str; 4] = ["/usr/local/cuda", "/opt/cuda", "/usr/lib/nvidia-cuda-toolkit", "/usr/lib/cuda"];

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    if env::var_os("CARGO_FEATURE_CUDA").is_none() {
        return;
    }
    // Not PATH: pip has another one for each build of the Python package.
    let own = ["NVCC", "CUDA_PATH", "CUDA_HOME", "CUDA_ARCH"];
    // The compiler reads these itself.
    for variable in own.into_iter().chain(["NVCC_PREPEND_FLAGS", "NVCC_APPEND_FLAGS", "NVCC_CCBIN"]) {
        println!("cargo:rerun-if-env-changed={variable}");
    }
    println!("cargo:rerun-if-changed=cuda");
    if Path::new(".cuda").exists() {
        println!("cargo:rerun-if-changed=.cuda");
    }
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
    let nvcc = find_nvcc().unwrap_or_else(|| {
        fail("the feature `cuda` needs nvcc: install a CUDA toolkit, or run tools/install-nvcc.sh, or set NVCC")
    });
    #[cfg(feature = "nvtx")]
    build_nvtx(&nvcc);
    // For the tests that ask ptxas what it makes of the kernels.
    println!("cargo:rustc-env=NVCC_USED={}", nvcc.display());
    println!("cargo:rustc-env=PTX_DIRECTORY={}", out.display());
    let version = version(&nvcc);
    let arch = arch();
    let mut modules = String::new();
    for source in sources() {
        let stem = source.file_stem().expect("a file has a name").to_str().expect("our names are ASCII");
        let ptx = out.join(stem).with_extension("ptx");
        let (arch, lowest) = match CLUSTERS.iter().any(|name| stem.starts_with(name)) {
            true => (cluster_arch(&arch), CLUSTER_PTX),
            false => (arch.clone(), PTX),
        };
        let mut command = Command::new(&nvcc);
        command.args(FLAGS).arg(format!("-arch={arch}")).arg("-o").arg(&ptx).arg(&source);
        match command.status() {
            Ok(status) if status.success() => {}
            Ok(_) => fail(&format!("nvcc could not compile {}", source.display())),
            Err(error) => fail(&format!("cannot run {}: {error}", nvcc.display())),
        }
        let text = fs::read_to_string(&ptx)
            .and_then(|text| fs::write(&ptx, for_oldest_driver(&text, &arch, lowest)));
        text.unwrap_or_else(|e| fail(&format!("cannot rewrite {}: {e}", ptx.display())));
        modules += &format!("    ({stem:?}, include_str!({:?})),\n", ptx);
    }
    let text = format!(
        "/// Each file of kernels and its PTX.\npub const MODULES: &[(&str, &str)] = &[\n{modules}];\n\
         /// The version of the nvcc that made it.\npub const NVCC: &str = {version:?};\n"
    );
    if let Err(error) = fs::write(out.join("ptx.rs"), text) {
        fail(&format!("cannot write {}: {error}", out.join("ptx.rs").display()));
    }
}

/// States the lowest version of PTX that will do: nvcc states its own, which every older driver refuses.
/// `needed` is that of what the file uses.
fn for_oldest_driver(ptx: &str, arch: &str, needed: (u32, u32)) -> String {
    let target = number(arch).unwrap_or(u32::MAX);
    let brought = TARGETS.iter().find(|(number, _)| *number == target).map(|(_, version)| *version);
    let lowest = match brought {
        Some(version) => version.max(needed),
        None if target <= 80 => needed,
        // Newer than this list, or with features of one device (`90a`): as nvcc has it.
        None => return ptx.to_string(),
    };
    let line = |line: &str| match line.strip_prefix(".version ") {
        Some(_) => Some(format!(".version {}.{}\n", lowest.0, lowest.1)),
        // A hint of PTX 8.3 for tools that look for reads of what nobody wrote.
        None if line.trim_start().starts_with(".pragma \"used_bytes_mask") => None,
        None => Some(format!("{line}\n")),
    };
    ptx.lines().filter_map(line).collect()
}

/// The number of an architecture without features of one device.
fn number(arch: &str) -> Option<u32> {
    arch.trim_start_matches("compute_").parse().ok()
}

/// The architecture for what takes clusters: that of all files, unless it is too old for them.
fn cluster_arch(arch: &str) -> String {
    match number(arch) {
        Some(number) if number < CLUSTER_ARCH => format!("compute_{CLUSTER_ARCH}"),
        _ => arch.to_string(),
    }
}

/// The shim over NVTX, whose header comes with the toolkit.
#[cfg(feature = "nvtx")]
fn build_nvtx(nvcc: &Path) {
    // It may have been found by a link to it.
    let real = nvcc.canonicalize().unwrap_or_else(|_| nvcc.into());
    let toolkits =
        [nvcc, &real].into_iter().filter_map(|nvcc| nvcc.ancestors().nth(2).map(Path::to_path_buf));
    let directories = toolkits.flat_map(|toolkit| {
        let targets = fs::read_dir(toolkit.join("targets")).into_iter().flatten().flatten();
        let targets: Vec<_> = targets.map(|target| target.path().join("include")).collect();
        [toolkit.join("include")].into_iter().chain(targets)
    });
    let Some(include) = directories.into_iter().find(|f| f.join("nvtx3/nvToolsExt.h").is_file()) else {
        fail("the feature `nvtx` needs the header nvtx3/nvToolsExt.h beside nvcc: run tools/install-nvcc.sh")
    };
    cc::Build::new().file("cuda/nvtx.c").include(include).compile("fpc_nvtx");
}

/// One sentence instead of a panic's backtrace.
fn fail(sentence: &str) -> ! {
    eprintln!("error: {sentence}");
    exit(1);
}

/// The kernels' files, by name.
fn sources() -> Vec<PathBuf> {
    let files = fs::read_dir("cuda").unwrap_or_else(|e| fail(&format!("cannot read cuda/: {e}")));
    let mut files: Vec<_> = files.flatten().map(|f| f.path()).collect();
    files.retain(|f| f.extension().is_some_and(|e| e == "cu"));
    files.sort();
    files
}

/// `NVCC`, then the toolkit named by `CUDA_PATH` or `CUDA_HOME`, then what `tools/install-nvcc.sh` has put into
/// `.cuda/`, then `PATH`, then where toolkits usually are.
fn find_nvcc() -> Option<PathBuf> {
    if let Some(nvcc) = env::var_os("NVCC") {
        return Some(nvcc.into());
    }
    let named = ["CUDA_PATH", "CUDA_HOME"].into_iter().filter_map(env::var_os);
    let named = named.map(|toolkit| Path::new(&toolkit).join("bin"));
    let root = env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default();
    let own = Path::new(&root).join(".cuda/bin");
    let path = env::var_os("PATH").unwrap_or_default();
    let usual = TOOLKITS.into_iter().map(|toolkit| Path::new(toolkit).join("bin"));
    let directories = named.chain([own]).chain(env::split_paths(&path)).chain(usual);
    let name = format!("nvcc{}", env::consts::EXE_SUFFIX);
    directories.map(|directory| directory.join(&name)).find(|nvcc| nvcc.is_file())
}

/// As "13.0.88": the last word of the line "Cuda compilation tools, release 13.0, V13.0.88".
fn version(nvcc: &Path) -> String {
    let output = Command::new(nvcc).arg("--version").output();
    let output = output.unwrap_or_else(|e| fail(&format!("cannot run {}: {e}", nvcc.display())));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = text.lines().find(|l| l.contains("release"));
    line.and_then(|l| l.rsplit('V').next()).unwrap_or("unknown").trim().to_string()
}

/// `CUDA_ARCH` as 90, sm_90 or compute_90.
fn arch() -> String {
    let Ok(wanted) = env::var("CUDA_ARCH") else { return ARCH.into() };
    let number = wanted.trim_start_matches("sm_").trim_start_matches("compute_");
    match number.bytes().take_while(u8::is_ascii_digit).count() >= 2 {
        true => format!("compute_{number}"),
        false => fail(&format!("CUDA_ARCH: expected a number like 90, found {wanted:?}")),
    }
}
