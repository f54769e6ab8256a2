//! Compiles `cuda/*.cu` to PTX, and only with the feature `cuda`.
//!
//! The idea: the engine embeds the PTX text, which the driver compiles for whatever device it finds. So a
//! build needs nvcc but no GPU, and one file list: every `.cu` in `cuda/`.

use std::path::{Path, PathBuf};
use std::process::{Command, exit};
use std::{env, fs};

/// The oldest devices that CUDA 13 compiles for.
const ARCH: &str = "compute_75";
/// `--fmad=false`: where a multiply-add is to be fused, the kernels say so, so that the bits do not depend
/// on the compiler.
const FLAGS: [&str; 7] =
    ["-ptx", "-O3", "-std=c++17", "--fmad=false", "-lineinfo", "-Werror", "all-warnings"];

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    if env::var_os("CARGO_FEATURE_CUDA").is_none() {
        return;
    }
    for variable in ["NVCC", "CUDA_PATH", "CUDA_HOME", "PATH", "CUDA_ARCH"] {
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
    // For the test that asks ptxas what the kernels take.
    println!("cargo:rustc-env=NVCC_USED={}", nvcc.display());
    let version = version(&nvcc);
    let arch = arch();
    let mut modules = String::new();
    for source in sources() {
        let stem = source.file_stem().expect("a file has a name").to_str().expect("our names are ASCII");
        let ptx = out.join(stem).with_extension("ptx");
        let mut command = Command::new(&nvcc);
        command.args(FLAGS).arg(format!("-arch={arch}")).arg("-o").arg(&ptx).arg(&source);
        match command.status() {
            Ok(status) if status.success() => {}
            Ok(_) => fail(&format!("nvcc could not compile {}", source.display())),
            Err(error) => fail(&format!("cannot run {}: {error}", nvcc.display())),
        }
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

/// The shim over NVTX, whose header comes with the toolkit.
#[cfg(feature = "nvtx")]
fn build_nvtx(nvcc: &Path) {
    let toolkit = nvcc.ancestors().nth(2).unwrap_or(Path::new("."));
    let folders = [toolkit.join("include"), toolkit.join("targets/x86_64-linux/include")];
    let Some(include) = folders.into_iter().find(|f| f.join("nvtx3/nvToolsExt.h").is_file()) else {
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

/// `NVCC`, then the toolkit named by `CUDA_PATH` or `CUDA_HOME`, then `PATH`, then what
/// `tools/install-nvcc.sh` has put into `.cuda/`.
fn find_nvcc() -> Option<PathBuf> {
    if let Some(nvcc) = env::var_os("NVCC") {
        return Some(nvcc.into());
    }
    let toolkits = ["CUDA_PATH", "CUDA_HOME"].into_iter().filter_map(env::var_os);
    let toolkits = toolkits.map(|t| Path::new(&t).join("bin"));
    let path = env::var_os("PATH").unwrap_or_default();
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join(".cuda/bin");
    let folders = toolkits.chain(env::split_paths(&path)).chain([own]);
    folders.map(|f| f.join("nvcc")).find(|nvcc| nvcc.is_file())
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
