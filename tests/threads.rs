//! More threads than cores, as a user asks for them.

#[path = "common/models.rs"]
mod models;
#[path = "common/run.rs"]
#[allow(dead_code, reason = "nothing fails here")]
mod run;

use std::process::Command;

use assert_cmd::cargo::CommandCargoExt;
use models::argument;
use run::run;
use serde_json::Value;

#[test]
fn every_program_runs_on_as_many_threads_as_there_are_cores_and_says_so_once() {
    let cores = std::thread::available_parallelism().unwrap().get();
    let out = tempfile::tempdir().unwrap();
    let (weights, images) = (argument("tiny/v2/params.ckpt"), argument("tiny/images_u8.npy"));
    let out = out.path().join("out");
    let report = out.with_file_name("report.json");
    let generate = ["-i", "8", "-b", "2", "--json", "-v", out.to_str().unwrap()];
    let evaluate = ["--images", &images, "--json"];
    let bench = ["--batch-sizes", "1", "--naive-passes", "1", "--json", report.to_str().unwrap()];
    for (program, args) in [("generate", &generate[..]), ("evaluate", &evaluate), ("bench", &bench)] {
        for asked in [cores, cores + 1, 100_000] {
            let threads = asked.to_string();
            let done = run(program, &[&["-c", &weights, "--threads", &threads], args].concat()).succeeds();
            let warnings: Vec<_> = done.stderr.lines().filter(|l| l.starts_with("warning: ")).collect();
            let start = format!("warning: --threads {asked}: this process has {cores} core");
            match warnings[..] {
                [] => assert_eq!(asked, cores, "{program}"),
                [one] => assert!(asked > cores && one.starts_with(&start), "{program}: {one}"),
                _ => panic!("{program}: {}", done.stderr),
            }
            // The bench's report has a number, the others' the engine's name.
            let report = match program {
                "bench" => std::fs::read(&report).unwrap(),
                _ => done.stdout.into(),
            };
            let report: Value = serde_json::from_slice(&report).unwrap();
            match report["machine"]["threads"].as_u64() {
                Some(threads) => assert_eq!((program, threads), ("bench", cores as u64)),
                None => {
                    let name = report["device"].as_str().unwrap();
                    let used = format!(", {cores} thread{})", if cores == 1 { "" } else { "s" });
                    assert!(program != "bench" && name.ends_with(&used), "{program}: {name}");
                }
            }
        }
    }
}

#[cfg(target_os = "linux")]
#[test]
fn cores_are_those_that_the_process_may_use() {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let list = status.lines().find_map(|l| l.strip_prefix("Cpus_allowed_list:")).unwrap().trim();
    let first = list.split([',', '-']).next().unwrap();
    let generate = Command::cargo_bin("generate").unwrap();
    let out = tempfile::tempdir().unwrap();
    let mut command = Command::new("taskset");
    command.args(["-c", first]).arg(generate.get_program());
    command.args(["-c", &argument("tiny/v2/params.ckpt"), "-i", "8", "-b", "2", "--threads", "2"]);
    let output = match command.arg("-v").arg(out.path()).output() {
        Ok(output) => output,
        Err(error) => return println!("not run: there is no taskset: {error}"),
    };
    assert!(output.status.success(), "{output:?}");
    let (stdout, stderr) =
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert_eq!(stderr, "warning: --threads 2: this process has 1 core, which it uses\n");
    assert!(stdout.contains(", 1 thread)"), "{stdout}");
}
