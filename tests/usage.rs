//! What is wrong with the flags is told in one line, too, by every program.

#[path = "common/models.rs"]
mod models;
#[path = "common/run.rs"]
mod run;

use models::{argument, tiny};
use run::run;

#[test]
fn wrong_flags_are_one_line_and_status_2() {
    for (program, flags, parts) in [
        ("generate", &["--temperature", "0"][..], &["--temperature", "above 0"][..]),
        ("generate", &["--temperature", "-1"], &["--temperature", "above 0"]),
        ("generate", &["--threads", "-1"], &["--threads", "-1"]),
        ("generate", &["--keep-rows", "16"], &["--complete"]),
        ("generate", &["--format", "foo"], &["foo", "png"]),
        ("generate", &["-n", "1", "-n", "2"], &["--count", "multiple times"]),
        ("generate", &["--nosie", "x"], &["--nosie", "tip:", "--noise"]),
        ("convert", &[], &["CHECKPOINT", "OUT_DIR"]),
        ("evaluate", &[], &["--images"]),
        ("evaluate", &["--images", "x.npy", "--tolerance", "-1"], &["--tolerance"]),
        ("bench", &["--batch-sizes", "many"], &["--batch-sizes", "many"]),
    ] {
        let run = run(program, flags);
        run.fails_with(parts);
        assert!(run.stderr.len() <= 400 && run.stderr.ends_with("see --help\n"), "{}", run.stderr);
    }
    let help = run("generate", &["--help"]).succeeds();
    assert!(help.stderr.is_empty() && help.stdout.lines().count() > 50, "{}", help.stdout);
}

#[test]
fn an_argument_is_called_what_the_program_calls_it() {
    let [tiny, cond, elu] = ["tiny", "cond", "elu"].map(|model| argument(&format!("{model}/v2/params.ckpt")));
    let [images, labels] = ["tiny/images_u8.npy", "cond/labels.npy"].map(argument);
    let complete = ["-c", &tiny, "--complete", &images, "--keep-rows", "9"];
    run("generate", &complete).fails_with(&["error: --keep-rows: expected at most 8"]);
    run("convert", &[&tiny, "/"]).fails_with(&["error: OUT_DIR: expected the name of a new directory"]);
    run("convert", &[&elu, "/none", "--scope", "x"]).fails_with(&["error: --scope: expected a scope"]);
    let given = ["--images", &images, "--labels", &labels];
    let named = format!("error: --labels {labels}: the model is unconditional");
    run("evaluate", &[&["-c", &tiny], &given[..]].concat()).fails_with(&[&named]);
    // No file to name.
    run("evaluate", &["-c", &cond, "--images", &images]).fails_with(&["error: --labels: the model is"]);
    run("bench", &["-c", &tiny, "--threads", "0"]).fails_with(&["error: --threads: expected 1 to"]);
}

#[test]
fn directories_around_a_conversion_are_made_and_go_with_a_failure() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("weights/of/tiny");
    let out = out.to_str().unwrap();
    run("convert", &[&argument("tiny/images_u8.npy"), out]).fails_with(&["images_u8.npy"]);
    assert!(!dir.path().join("weights").exists());
    run("convert", &[&tiny(), out]).succeeds();
    assert!(dir.path().join("weights/of/tiny/model.json").is_file());
    let left: Vec<_> = std::fs::read_dir(dir.path().join("weights/of")).unwrap().collect();
    assert_eq!(left.len(), 1, "{left:?}");
}
