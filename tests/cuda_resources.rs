//! What the kernels take of a multiprocessor, as `ptxas` tells for three generations of devices.
//!
//! The idea: a register that is spilled is a load and a store in the innermost loop; none is.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

/// Turing, Ampere, Hopper.
const DEVICES: [&str; 3] = ["sm_75", "sm_80", "sm_90"];

/// Those that a file, or a kernel, is for by its name: clusters came with Hopper.
fn devices(name: &str) -> &'static [&'static str] {
    let clusters = ["cluster", "masked_conv_spread"].iter().any(|begin| name.starts_with(begin));
    if clusters { &DEVICES[2..] } else { &DEVICES }
}

/// Registers, bytes of shared memory, bytes of stack and spills of a kernel.
#[derive(Clone, Copy, Debug, Default)]
struct Resources {
    registers: u32,
    shared: u32,
    stack: u32,
}

/// The number before a word in a line.
fn before(line: &str, word: &str) -> Option<u32> {
    line.split(word).next()?.split_whitespace().last()?.parse().ok().filter(|_| line.contains(word))
}

/// Kernel by kernel from the messages of `-Xptxas -v`.
fn read(messages: &str) -> Vec<(String, Resources)> {
    let mut kernels: Vec<(String, Resources)> = Vec::new();
    for line in messages.lines() {
        if let Some(name) = line.split("Compiling entry function '").nth(1) {
            kernels.push((name.split('\'').next().unwrap().to_string(), Resources::default()));
        }
        let Some((_, kernel)) = kernels.last_mut() else { continue };
        for word in [" bytes stack frame", " bytes spill stores", " bytes spill loads"] {
            let part = line.split(", ").find(|p| p.contains(word)).and_then(|p| before(p, word));
            kernel.stack += part.unwrap_or(0);
        }
        if let Some(registers) = before(line, " registers") {
            kernel.registers = registers;
            let shared = line.split(", ").find(|p| p.contains(" bytes smem"));
            kernel.shared = shared.and_then(|p| before(p, " bytes smem")).unwrap_or(0);
        }
    }
    kernels
}

#[test]
fn no_kernel_spills_registers() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("cuda");
    let out = tempfile::tempdir().unwrap();
    let mut table: BTreeMap<String, Vec<Resources>> = BTreeMap::new();
    for file in std::fs::read_dir(&directory).unwrap() {
        let file = file.unwrap().path();
        if file.extension().is_none_or(|e| e != "cu") {
            continue;
        }
        for device in devices(file.file_stem().unwrap().to_str().unwrap()) {
            let mut nvcc = Command::new(env!("NVCC_USED"));
            nvcc.args(["-cubin", "-O3", "-std=c++17", "--fmad=false", "-Xptxas", "-v"]);
            nvcc.arg(format!("-arch={device}")).arg("-o").arg(out.path().join("kernels.cubin")).arg(&file);
            let output = nvcc.output().unwrap();
            let messages = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.success(), "{messages}");
            for (kernel, resources) in read(&messages) {
                table.entry(kernel).or_default().push(resources);
            }
        }
    }
    println!(
        "| kernel | registers on {}, or the last of them | bytes of shared memory |",
        DEVICES.join(", ")
    );
    println!("| --- | --- | ---: |");
    for (kernel, on) in &table {
        let registers: Vec<_> = on.iter().map(|r| r.registers.to_string()).collect();
        println!("| `{kernel}` | {} | {} |", registers.join(", "), on[0].shared);
    }
    assert!(table.len() >= 12, "only {} kernels were seen", table.len());
    for (kernel, on) in &table {
        assert_eq!(on.len(), devices(kernel).len(), "{kernel}");
        assert!(on.iter().all(|r| r.registers > 0 && r.stack == 0), "{kernel} spills: {on:?}");
    }
}
