//! Devices that are small, old, poor or broken: a clear error or another way, and nothing left behind.
//!
//! The virtual GPU can be made to be all of these; on a real one none of this is run, and it says so.

#[path = "common/models.rs"]
mod models;

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::process::Command;

use assert_cmd::cargo::CommandCargoExt;
use fast_pixel_cnn::{WaveNet, Weights};
use models::{argument, tiny};
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
    let directory = tempfile::tempdir().unwrap();
    let report = directory.path().join("report.json");
    let mut command = Command::cargo_bin(program).unwrap();
    command
        .current_dir(directory.path())
        .env("VGPU_REPORT", &report)
        .envs(settings.iter().copied())
        .args(args);
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
    let base = ["-c", &tiny(), "-i", "4", "-n", "2", "--device", "cuda", "--json"];
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
        assert_eq!(self.report["handles"], serde_json::json!([0, 0, 0, 0, 0]), "{}", self.stderr);
    }

    fn strategy(&self) -> String {
        let report: Value = serde_json::from_str(&self.stdout).unwrap();
        let device = report["device"].as_str().unwrap();
        device.rsplit(", ").next().unwrap().trim_end_matches(')').to_string()
    }
}

#[test]
fn a_run_leaves_nothing_behind() {
    for strategy in ["auto", "launch", "graph", "persistent", "team"] {
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
fn a_naive_batch_is_made_in_parts_that_memory_holds() {
    // 65 images of 16 pixels: 64 and 1; with less memory 16 at a time.
    let images = |settings: &[(&str, &str)], naive: bool| {
        let directory = tempfile::tempdir().unwrap();
        let save = directory.path().to_str().unwrap();
        let base = ["-c", &tiny(), "-i", "4", "-n", "65", "-b", "65", "--device", "cuda", "-v", save];
        let naive = if naive { &["--naive"][..] } else { &[] };
        let device = on("generate", settings, &[&base[..], naive].concat())?;
        assert_eq!(device.code, Some(0), "{}", device.stderr);
        device.leaves_nothing();
        let draws = device.report["kernels"]["sample_f32"]["launches"].as_u64();
        Some((draws, std::fs::read(directory.path().join("samples.npy")).unwrap()))
    };
    let Some((_, cached)) = images(&[("VGPU_MULTIPROCESSORS", "2")], false) else { return };
    for (memory, parts) in [("1000000000", 2), ("3000000", 5)] {
        let settings = [("VGPU_MULTIPROCESSORS", "2"), ("VGPU_MEMORY", memory)];
        let (draws, naive) = images(&settings, true).unwrap();
        assert_eq!(draws, Some(16 * parts), "{memory} bytes");
        assert!(naive == cached, "{memory} bytes: other images");
    }
}

#[test]
fn a_launch_that_fails_is_an_error() {
    for strategy in ["launch", "graph"] {
        for (on, function) in [("a100", "cuLaunchKernel"), ("h100", "cuLaunchKernelEx")] {
            let fail = format!("{function}:{}", if strategy == "graph" { 4 } else { 40 });
            let settings = [("VGPU_DEVICE", on), ("VGPU_FAIL", &fail)];
            let Some(device) = generate(&settings, &["--strategy", strategy]) else { return };
            device.fails_with(&["cuda:0: cannot launch masked_conv", "launch failure"]);
        }
    }
    let fail = [("VGPU_FAIL", "cuLaunchCooperativeKernel:3")];
    generate(&fail, &["--strategy", "persistent"]).unwrap().fails_with(&["cannot launch persistent_f32"]);
    let fail = [("VGPU_FAIL", "cuLaunchCooperativeKernel:2")];
    generate(&fail, &["--strategy", "team"]).unwrap().fails_with(&["cannot launch team_f32"]);
    let fail = [("VGPU_FAIL", "cuGraphLaunch:7")];
    generate(&fail, &["--strategy", "graph"]).unwrap().fails_with(&["cannot launch a graph"]);
    let fail = [("VGPU_FAIL", "cuGraphInstantiate_v2:2")];
    generate(&fail, &["--strategy", "graph"]).unwrap().fails_with(&["cannot instantiate a graph"]);
}

#[test]
fn a_device_that_cannot_make_all_blocks_run_at_once_gets_graphs() {
    for settings in [[("VGPU_COOPERATIVE", "0")], [("VGPU_DEVICE", "k40")]] {
        let Some(device) = generate(&settings, &["--strategy", "auto"]) else { return };
        assert_eq!(device.code, Some(0), "{}", device.stderr);
        assert_eq!(device.strategy(), "graph");
        device.leaves_nothing();
        // What was asked for is not exchanged for something else.
        for strategy in ["persistent", "team"] {
            let device = generate(&settings, &["--strategy", strategy]).unwrap();
            let refused = format!("cannot run the strategy {strategy}");
            device.fails_with(&[&refused, "no cooperative launches"]);
        }
    }
}

#[test]
fn clusters_where_there_are_none_are_refused() {
    let refusals = [
        ([("VGPU_DEVICE", "a100")], ["cannot run the strategy cluster", "compute capability 9.0"]),
        (
            [("VGPU_MULTIPROCESSORS", "6")],
            ["cannot run the strategy cluster", "no cluster of 16 blocks fits"],
        ),
        ([("VGPU_DRIVER_VERSION", "11080")], ["cannot compile the kernels", "PTX 8.1 is newer"]),
    ];
    for (settings, words) in refusals {
        let Some(device) = generate(&settings, &["--strategy", "cluster"]) else { return };
        device.fails_with(&words);
    }
    // The last launch of clusters is that of the last row's pixels. Which one it is: the last that can fail.
    let failing = |call: usize| {
        generate(&[("VGPU_FAIL", &format!("cuLaunchKernelEx:{call}"))], &["--strategy", "cluster"]).unwrap()
    };
    let (mut last, mut beyond) = (1, 512);
    while beyond - last > 1 {
        let call = (last + beyond) / 2;
        *(if failing(call).code == Some(0) { &mut beyond } else { &mut last }) = call;
    }
    failing(last).fails_with(&["cannot launch cluster_f32", "launch failure"]);
}

#[test]
fn a_network_that_is_too_large_for_a_strategy_is_refused_before_anything_is_made() {
    let place = tempfile::tempdir().unwrap();
    let many = WaveNet { dilations: vec![1; 60], residual_channels: 1024, ..WaveNet::default() };
    let outputs = WaveNet { dilations: vec![1, 2], skip_channels: 1040, ..WaveNet::default() };
    for (config, strategy, words) in
        [(many, "team", "too large for a block"), (outputs, "cluster", "too large for clusters of 16 blocks")]
    {
        let at = place.path().join(strategy);
        let narrow = WaveNet { dilation_channels: 8, quantization_channels: 16, ..config };
        Weights::synthetic(narrow, 1).save(&at).unwrap();
        let args = [
            "-c",
            at.to_str().unwrap(),
            "--length",
            "2",
            "-n",
            "1",
            "--device",
            "cuda",
            "--strategy",
            strategy,
        ];
        let Some(device) = on("generate", &[], &args) else { return };
        device
            .fails_with(&[&format!("cannot run the strategy {strategy}: the network's layers are {words}")]);
        assert_eq!(device.report["allocations"]["calls"], 0);
    }
}

#[test]
fn a_driver_older_than_the_kernels_names_both_versions_and_shows_its_own_words() {
    let Some(device) = generate(&[("VGPU_DRIVER_VERSION", "10020")], &[]) else { return };
    let words = "PTX 7.0 is newer than 6.5, which this driver knows";
    device.fails_with(&["cannot compile the kernels", words, "CUDA 10.2", "Update the driver"]);
}

#[test]
fn drivers_since_cuda_11_take_the_kernels() {
    // Those of 12.1 know clusters, but in a graph no launch that begins before the one before has ended.
    for driver in ["11000", "12000", "12010", "12030"] {
        let Some(device) = generate(&[("VGPU_DRIVER_VERSION", driver)], &[]) else { return };
        assert_eq!(device.code, Some(0), "{driver}: {}", device.stderr);
        device.leaves_nothing();
    }
}

#[test]
fn results_that_came_after_cust_are_errors_with_a_text() {
    // Of a call of cust's, and of one of the engine's own.
    let Some(device) = generate(&[("VGPU_FAIL", "cuEventSynchronize:1=919")], &[]) else { return };
    device.fails_with(&["cuda:0: cannot run the kernels: error 919"]);
    let device = generate(&[("VGPU_FAIL", "cuLaunchCooperativeKernel:1=46")], &[]).unwrap();
    device.fails_with(&["cuda:0: cannot launch persistent_f32: error 46"]);
}

#[test]
fn only_what_a_strategy_needs_is_compiled() {
    // The file of a kernel.
    let file_of = |kernel: &str| match kernel {
        _ if kernel.starts_with("cache") || kernel.starts_with("cursor") => "cache",
        "sample_f32" | "log_likelihood_f32" => "sample",
        "concat_elu_f32" | "elu_f32" | "relu_f32" => "concat_elu",
        "masked_conv_gemv_f32" => "masked_conv_gemv",
        "masked_conv_gemm_f32" => "masked_conv_gemm",
        "masked_conv_split_f32" => "masked_conv_split",
        "masked_conv_spread_f32" => "masked_conv_spread",
        "persistent_f32" => "persistent",
        "team_f32" => "team",
        _ => panic!("in which file is {kernel}?"),
    };
    // How many files the driver compiles, and of which kernels were run.
    let modules = |strategy: &str, more: &[&str]| {
        // The call after the last fails, so it is not reached.
        let all = [&["--strategy", strategy], more].concat();
        let mut compiled = 0;
        while let Some(device) =
            generate(&[("VGPU_FAIL", &format!("cuModuleLoadDataEx:{}", compiled + 1))], &all)
        {
            if device.code == Some(0) {
                let kernels = device.report["kernels"].as_object().unwrap();
                let files: BTreeSet<_> = kernels.keys().map(|kernel| file_of(kernel)).collect();
                return Some((compiled, files));
            }
            device.fails_with(&["cannot compile the kernels"]);
            compiled += 1;
        }
        None
    };
    let Some((persistent, files)) = modules("persistent", &[]) else { return };
    // What comes before the pixels may take any kernel of convolutions.
    let of_rows = ["masked_conv_gemv", "masked_conv_gemm", "masked_conv_split", "masked_conv_spread"];
    assert_eq!(persistent, 2 + of_rows.len());
    assert!(
        files.is_superset(&BTreeSet::from(["cache", "persistent"])) && !files.contains("sample"),
        "{files:?}"
    );
    let (team, files) = modules("team", &[]).unwrap();
    assert!(team == 2 + of_rows.len() && files.contains("team"), "{team} compiled, run of {files:?}");
    for (strategy, more) in [("launch", &[][..]), ("graph", &[]), ("persistent", &["--naive"])] {
        let (compiled, files) = modules(strategy, more).unwrap();
        assert_eq!(compiled, files.len(), "{strategy} {more:?}: {files:?}");
        assert!(!files.contains("persistent"));
    }
}

#[test]
fn without_a_driver_the_processor_is_used_or_one_line_says_what_is_missing() {
    let run = |flags: &[&str]| {
        let directory = tempfile::tempdir().unwrap();
        let mut command = Command::cargo_bin("generate").unwrap();
        command.current_dir(directory.path()).env_remove("LD_LIBRARY_PATH");
        command.args(["-c", &tiny(), "-i", "4", "-n", "1"]).args(flags).output().unwrap()
    };
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let cuda = run(&["--device", "cuda"]);
    let said = text(&cuda.stderr);
    if !said.contains("libcuda.so.1") {
        println!("not run: this machine has a driver");
        return;
    }
    assert_eq!((cuda.status.code(), said.lines().count()), (Some(2), 1), "{said}");
    assert!(said.starts_with("error: cuda:0: cannot start the driver: libcuda.so.1: "), "{said}");
    let auto = run(&["--device", "auto"]);
    let said = text(&auto.stderr);
    assert_eq!((auto.status.code(), said.lines().count()), (Some(0), 1), "{said}");
    assert!(said.contains("running on the processor"), "{said}");
    for flags in [&["--device", "cpu"][..], &["--help"]] {
        let output = run(flags);
        assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), String::new()), "{flags:?}");
    }
}

#[test]
fn a_device_that_is_not_there_is_an_error() {
    let Some(device) = on("generate", &[], &["-c", &tiny(), "--device", "cuda:1"]) else { return };
    device.fails_with(&["cuda:1: cannot open the device: there are 1 devices"]);
}

#[test]
fn every_device_makes_the_same_images() {
    let mut images = Vec::new();
    let directory = tempfile::tempdir().unwrap();
    let mut generate = |settings: &[(&str, &str)], flags: &[&str]| {
        let out = directory.path().join(images.len().to_string());
        let flags = [flags, &["-b", "2", "-v", out.to_str().unwrap()]].concat();
        let Some(device) = generate(settings, &flags) else { return };
        assert_eq!(device.code, Some(0), "{}", device.stderr);
        images.push(std::fs::read(out.join("samples.npy")).unwrap());
    };
    for device in ["k40", "v100", "a100", "h100"] {
        generate(&[("VGPU_DEVICE", device)], &[]);
    }
    // So few multiprocessors that a block has several shares of a stage to do, one after the other, and
    // that small stages are done in tiles as well.
    for multiprocessors in ["1", "3"] {
        for strategy in ["launch", "persistent"] {
            generate(&[("VGPU_MULTIPROCESSORS", multiprocessors)], &["--strategy", strategy]);
        }
    }
    assert!(images.iter().all(|i| *i == images[0]));
    // So many images for one multiprocessor that a pixel's stages are matrix products, but in the persistent kernel; and, in
    // row phases of larger ones, products of the widest tiles.
    for (side, precision) in [("8", "f32"), ("32", "f32"), ("8", "bf16")] {
        let images = ["launch", "persistent"].map(|strategy| {
            let out = directory.path().join(format!("{strategy}-{side}-{precision}"));
            let flags = ["-n", "12", "-b", "12", "--strategy", strategy, "-v", out.to_str().unwrap()];
            let base = ["-c", &tiny(), "-i", side, "--device", "cuda", "--precision", precision];
            let device = on("generate", &[("VGPU_MULTIPROCESSORS", "1")], &[&base[..], &flags].concat())?;
            assert_eq!(device.code, Some(0), "{}", device.stderr);
            let kernel = format!("masked_conv_gemm_{precision}");
            assert!(device.report["kernels"].get(&kernel).is_some(), "{strategy} runs no {kernel}");
            Some(std::fs::read(out.join("samples.npy")).unwrap())
        });
        assert!(images[0] == images[1], "{side} x {side}, {precision}");
    }
    // One image after such a batch: `auto` takes graphs for the batch and hands values over for the image.
    let series = ["auto", "launch"].map(|strategy| {
        let out = directory.path().join(format!("{strategy}-series"));
        let flags = ["-n", "41", "-b", "40", "-i", "8", "--strategy", strategy, "-v", out.to_str().unwrap()];
        let base = ["-c", &tiny(), "--device", "cuda"];
        let device = on("generate", &[("VGPU_MULTIPROCESSORS", "1")], &[&base[..], &flags].concat())?;
        assert_eq!(device.code, Some(0), "{}", device.stderr);
        let runs = |kernel| device.report["kernels"].get(kernel).is_some();
        assert_eq!([runs("sample_f32"), runs("persistent_f32")], [true, strategy == "auto"], "{strategy}");
        Some(std::fs::read(out.join("samples.npy")).unwrap())
    });
    assert!(series[0] == series[1]);
    // Full passes, where activations are stored: by the widest tiles on one multiprocessor, and by others on many.
    let made = directory.path().join("launch-32-f32/images.npy");
    let args = ["-c", &tiny(), "--images", made.to_str().unwrap(), "--device", "cuda", "--json"];
    let scores = ["1", "132"].map(|n| {
        let device = on("evaluate", &[("VGPU_MULTIPROCESSORS", n)], &args)?;
        assert_eq!(device.code, Some(0), "{}", device.stderr);
        Some(serde_json::from_str::<Value>(&device.stdout).unwrap()["nats"].clone())
    });
    assert!(scores[0] == scores[1], "{scores:?}");
}

#[test]
fn bench_predicts_every_strategy() {
    let args = ["--device", "cuda", "--explain", "--batch-sizes", "1,3", "-c", &tiny()];
    let Some(device) = on("bench", &[], &args) else { return };
    assert_eq!(device.code, Some(0), "{}", device.stderr);
    for batch in [1, 3] {
        for strategy in ["launch", "graph", "persistent"] {
            let row = format!("| {batch} | {strategy} | ");
            let rest = device.stdout.lines().find_map(|line| line.strip_prefix(&row));
            let rest = rest.unwrap_or_else(|| panic!("no {row}: {}", device.stdout));
            let numbers: Vec<f64> = rest.split('|').filter_map(|text| text.trim().parse().ok()).collect();
            let [rows, pixels, drawing, cached, naive, ratio] = numbers[..] else { panic!("{rest}") };
            assert!(rows > 0.0 && pixels > 0.0 && drawing > 0.0 && naive > 0.0, "{rest}");
            // As far as they are printed.
            assert!((rows + pixels + drawing - cached).abs() < 2e-4, "{rest}");
            let [least, most] = [naive - 0.006, naive + 0.006];
            assert!(least / (cached + 1e-4) - 0.6 < ratio && ratio < most / (cached - 1e-4) + 0.6, "{rest}");
        }
    }
    device.leaves_nothing();
}

#[test]
fn evaluate_runs_on_the_device() {
    let (weights, images) = (tiny(), argument("tiny/images_u8.npy"));
    let logits = argument("tiny/logits.npy");
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
    let [weights, images, labels] =
        ["v2/params.ckpt", "images_u8.npy", "labels.npy"].map(|name| argument(&format!("cond/{name}")));
    let base = ["-c", &weights, "--images", &images, "--labels", &labels, "--classify", "--json", "--device"];
    let Some(device) = on("evaluate", &[], &[&base[..], &["cuda"]].concat()) else { return };
    assert_eq!(device.code, Some(0), "{}", device.stderr);
    let cpu = Command::cargo_bin("evaluate").unwrap().args(base).arg("cpu").output().unwrap();
    let [on_cuda, on_cpu]: [Value; 2] =
        [device.stdout.as_bytes(), &cpu.stdout].map(|text| serde_json::from_slice(text).unwrap());
    assert_eq!((&on_cuda["classes"], &on_cuda["accuracy"]), (&on_cpu["classes"], &on_cpu["accuracy"]));
}
