//! Devices that are small, old, poor or broken: a clear error or another way, and nothing left behind.
//!
//! The virtual GPU can be made to be all of these; on a real one none of this is run, and it says so.

use std::ffi::OsStr;
use std::process::Command;

use assert_cmd::cargo::CommandCargoExt;
use serde_json::Value;

/// What a program left, and the virtual GPU's report.
struct Device {
    code: Option<i32>,
    stdout: String,
    stderr: String,
    report: Value,
}

/// Runs a program on the virtual GPU; `None` on a real one, which writes no report.
fn on<S: AsRef<OsStr>>(program: &str, settings: &[(&str, &str)], args: &[S]) -> Option<Device> {
    let folder = tempfile::tempdir().unwrap();
    let report = folder.path().join("report.json");
    let mut command = Command::cargo_bin(program).unwrap();
    command.current_dir(folder.path()).env("VGPU_REPORT", &report).envs(settings.iter().copied()).args(args);
    let output = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let Ok(report) = std::fs::read(&report) else {
        println!("not run: there is no virtual GPU");
        return None;
    };
    Some(Device {
        code: output.status.code(),
        stdout: text(output.stdout),
        stderr: text(output.stderr),
        report: serde_json::from_slice(&report).unwrap(),
    })
}

/// Generates two small images.
fn generate(settings: &[(&str, &str)], flags: &[&str]) -> Option<Device> {
    let tiny = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/tiny/v2/params.ckpt");
    let base = ["-c", tiny, "-i", "4", "-n", "2", "--device", "cuda", "--json"];
    on("generate", settings, &[&base[..], flags].concat())
}

impl Device {
    /// One line of error, status 2, and all memory given back.
    fn fails_with(&self, parts: &[&str]) {
        // The virtual GPU says on stderr what it thinks of it.
        let own: Vec<_> = self.stderr.lines().filter(|l| !l.starts_with("vgpu:")).collect();
        assert_eq!((self.code, own.len()), (Some(2), 1), "{}", self.stderr);
        for part in parts {
            assert!(own[0].starts_with("error: ") && own[0].contains(part), "{}\nlacks: {part}", own[0]);
        }
        self.leaves_nothing();
    }

    fn leaves_nothing(&self) {
        assert_eq!(self.report["live"], Value::Array(vec![]), "{}", self.stderr);
    }

    fn strategy(&self) -> String {
        let report: Value = serde_json::from_str(&self.stdout).unwrap();
        let device = report["device"].as_str().unwrap();
        device.rsplit(", ").next().unwrap().trim_end_matches(')').to_string()
    }
}

#[test]
fn a_run_leaves_nothing_behind() {
    for strategy in ["auto", "launch", "graph", "persistent"] {
        let Some(device) = generate(&[], &["--strategy", strategy]) else { return };
        assert_eq!(device.code, Some(0), "{}", device.stderr);
        assert_eq!(device.strategy(), if strategy == "auto" { "persistent" } else { strategy });
        device.leaves_nothing();
    }
}

#[test]
fn memory_that_is_not_there_is_an_error() {
    // Not even the weights fit; the weights fit and a batch does not; the driver refuses in the middle.
    let Some(device) = generate(&[("VGPU_MEMORY", "100000")], &[]) else { return };
    device.fails_with(&["cuda:0: cannot hold the weights: they need", "MiB are available"]);
    let device = generate(&[("VGPU_MEMORY", "180000")], &[]).unwrap();
    device.fails_with(&["a batch of 2 needs", "a batch of 1 would fit"]);
    for call in ["1", "2", "3", "5", "8"] {
        let device = generate(&[("VGPU_FAIL", &format!("cuMemAlloc_v2:{call}"))], &[]).unwrap();
        device.fails_with(&["cuda:0: cannot allocate", "memory"]);
    }
}

#[test]
fn a_launch_that_fails_is_an_error() {
    for strategy in ["launch", "graph"] {
        let fail = format!("cuLaunchKernel:{}", if strategy == "graph" { 4 } else { 40 });
        let Some(device) = generate(&[("VGPU_FAIL", &fail)], &["--strategy", strategy]) else { return };
        device.fails_with(&["cuda:0: cannot launch masked_conv", "launch failure"]);
    }
    let fail = [("VGPU_FAIL", "cuLaunchCooperativeKernel:3")];
    generate(&fail, &["--strategy", "persistent"]).unwrap().fails_with(&["cannot launch persistent_f32"]);
    let fail = [("VGPU_FAIL", "cuGraphLaunch:7")];
    generate(&fail, &["--strategy", "graph"]).unwrap().fails_with(&["cannot launch a graph"]);
    let fail = [("VGPU_FAIL", "cuGraphInstantiate_v2:2")];
    generate(&fail, &["--strategy", "graph"]).unwrap().fails_with(&["cannot instantiate a graph"]);
}

#[test]
fn a_device_that_cannot_make_all_blocks_run_at_once_gets_graphs() {
    for settings in [[("VGPU_COOPERATIVE", "0")], [("VGPU_DEVICE", "k40")]] {
        for strategy in ["auto", "persistent"] {
            let Some(device) = generate(&settings, &["--strategy", strategy]) else { return };
            assert_eq!(device.code, Some(0), "{}", device.stderr);
            assert_eq!(device.strategy(), "graph");
            device.leaves_nothing();
        }
    }
}

#[test]
fn a_driver_older_than_the_kernels_names_both_versions() {
    let Some(device) = generate(&[("VGPU_DRIVER_VERSION", "12040")], &[]) else { return };
    device.fails_with(&["cannot load the kernels", "PTX 9.", "CUDA 12.4", "nvcc no newer than the driver"]);
}

#[test]
fn a_device_that_is_not_there_is_an_error() {
    let Some(device) = generate(&[], &["--device", "cuda:1"]) else { return };
    device.fails_with(&["cuda:1: cannot open the device: there are 1 devices"]);
}

#[test]
fn every_device_makes_the_same_images() {
    let mut images = Vec::new();
    let folder = tempfile::tempdir().unwrap();
    let mut make = |settings: &[(&str, &str)], flags: &[&str]| {
        let out = folder.path().join(images.len().to_string());
        let flags = [flags, &["-b", "2", "-v", out.to_str().unwrap()]].concat();
        let Some(device) = generate(settings, &flags) else { return };
        assert_eq!(device.code, Some(0), "{}", device.stderr);
        images.push(std::fs::read(out.join("samples.npy")).unwrap());
    };
    for device in ["k40", "v100", "a100", "h100"] {
        make(&[("VGPU_DEVICE", device)], &[]);
    }
    // So few multiprocessors that a block has several shares of a stage to do, one after the other, and
    // that small stages are done in tiles as well.
    for multiprocessors in ["1", "3"] {
        for strategy in ["launch", "persistent"] {
            make(&[("VGPU_MULTIPROCESSORS", multiprocessors)], &["--strategy", strategy]);
        }
    }
    assert!(images.iter().all(|i| *i == images[0]));
}

#[test]
fn bench_and_evaluate_run_on_the_device() {
    let tiny = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/tiny");
    let file = |name: &str| format!("{tiny}/{name}");
    let (weights, images) = (file("v2/params.ckpt"), file("images_u8.npy"));
    let logits = file("logits.npy");
    let base = ["-c", &weights, "--images", &images, "--device", "cuda"];
    let Some(device) = on("evaluate", &[], &base) else { return };
    assert_eq!(device.code, Some(0), "{}", device.stderr);
    device.leaves_nothing();
    let compare = [&base[..], &["--compare-logits", &logits]].concat();
    let device = on("evaluate", &[], &compare).unwrap();
    assert_eq!(device.code, Some(0), "{}", device.stderr);
}

#[test]
fn images_are_taken_for_the_same_classes_as_on_the_cpu() {
    let cond = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/cond");
    let [weights, images, labels] =
        ["v2/params.ckpt", "images_u8.npy", "labels.npy"].map(|name| format!("{cond}/{name}"));
    let base = ["-c", &weights, "--images", &images, "--labels", &labels, "--classify", "--json", "--device"];
    let Some(device) = on("evaluate", &[], &[&base[..], &["cuda"]].concat()) else { return };
    assert_eq!(device.code, Some(0), "{}", device.stderr);
    let cpu = Command::cargo_bin("evaluate").unwrap().args(base).arg("cpu").output().unwrap();
    let [on_cuda, on_cpu]: [Value; 2] =
        [device.stdout.as_bytes(), &cpu.stdout].map(|text| serde_json::from_slice(text).unwrap());
    assert_eq!((&on_cuda["classes"], &on_cuda["accuracy"]), (&on_cpu["classes"], &on_cpu["accuracy"]));
}
