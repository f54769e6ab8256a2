//! The program `bench` as a user runs it. Its figures are whatever the machine gives; here it is checked
//! that they are there, that they fit each other, and that bad input is refused.

#[path = "common/models.rs"]
mod models;
#[path = "common/run.rs"]
mod run;

use models::argument;
use run::run;
use serde_json::Value;

/// More threads are not started, whatever is asked for.
fn cores() -> usize {
    std::thread::available_parallelism().unwrap().get()
}

#[test]
fn the_report_has_a_row_for_each_batch_and_its_numbers_fit_each_other() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("bench.json");
    let weights = argument("cond/v2/params.ckpt");
    let args = ["-c", &weights, "--batch-sizes", "1,3", "--naive-passes", "2", "--threads", "2", "--json"];
    let done = run("bench", &[&args[..], &[file.to_str().unwrap()]].concat()).succeeds();
    let table = done.stdout.lines().filter(|l| l.starts_with("| 1 |") || l.starts_with("| 3 |"));
    assert_eq!(table.count(), 2, "{}", done.stdout);
    assert!(done.stdout.contains("2 full forward passes timed for each batch, the median times 1024 pixels"));

    let report: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    assert_eq!(report["machine"]["threads"], cores().min(2));
    assert!(report["limit"]["flops"].as_f64().unwrap() > 0.0);
    assert_eq!(report["model"]["nr_filters"], 8);
    let rows = report["results"].as_array().unwrap();
    assert_eq!(rows.len(), 2);
    for (row, (batch, paper)) in rows.iter().zip([(1, Some(2.9)), (3, None)]) {
        let number = |key: &str| row[key].as_f64().unwrap_or_else(|| panic!("{key} in {row}"));
        assert_eq!((number("batch"), row["paper_speedup"].as_f64()), (f64::from(batch), paper));
        assert_eq!(number("naive_passes"), 2.0);
        let close = |a: f64, b: f64| assert!((a / b - 1.0).abs() < 1e-9, "{a} {b}");
        close(number("speedup"), number("naive_seconds") / number("cached_seconds"));
        close(number("images_per_second"), f64::from(batch) / number("cached_seconds"));
        assert!(number("share_of_limit") > 0.0);
    }
}

/// The cells of the rows of a table for one batch.
fn cells(stdout: &str, batch: usize) -> Vec<Vec<String>> {
    let start = format!("| {batch} |");
    let rows = stdout.lines().filter(|l| l.starts_with(&start));
    rows.map(|l| l.trim_matches('|').split('|').map(|c| c.trim().to_string()).collect()).collect()
}

#[test]
fn explain_predicts_each_way_of_sharing_and_the_first_is_the_fastest() {
    let weights = argument("cond/v2/params.ckpt");
    let args = ["-c", &weights, "--threads", "2", "--batch-sizes", "1,200", "--explain"];
    let done = run("bench", &args).succeeds();
    for batch in [1, 200] {
        let rows = cells(&done.stdout, batch);
        assert_eq!(rows.len(), 2, "{}", done.stdout);
        let seconds: Vec<f64> = rows.iter().map(|r| r.last().unwrap().parse().unwrap()).collect();
        assert!(seconds[0] <= seconds[1], "{}", done.stdout);
    }
    // A model this small is not worth splitting over threads, and 200 images are more than one block.
    let [teams, block] = if cores() > 1 { ["2 of 1", "50"] } else { ["1 of 1", "29"] };
    assert_eq!(cells(&done.stdout, 200)[0][1..4], ["images", teams, block]);
}

#[test]
fn phases_add_up_to_the_total() {
    let weights = argument("cond/v2/params.ckpt");
    let args = ["-c", &weights, "--batch-sizes", "1,3", "--precision", "bf16", "--phases"];
    let done = run("bench", &args).succeeds();
    for batch in [1, 3] {
        let rows = cells(&done.stdout, batch);
        assert_eq!(rows.len(), 1, "{}", done.stdout);
        let seconds = rows[0][1..].iter().map(|c| c.split(' ').next().unwrap().parse::<f64>().unwrap());
        let seconds: Vec<f64> = seconds.collect();
        let (total, parts) = seconds.split_last().unwrap();
        assert_eq!(parts.len(), 6);
        // Each number is rounded to a millisecond.
        assert!((parts.iter().sum::<f64>() - total).abs() < 4e-3, "{}", done.stdout);
        assert!(parts.iter().all(|p| *p >= 0.0), "{}", done.stdout);
    }
}

#[test]
fn shapes_that_two_nonlinearities_have_are_named() {
    let weights = argument("relu/v2/params.ckpt");
    let explain = |more: &[&str]| run("bench", &[&["-c", &weights, "--explain"], more].concat()).succeeds();
    assert!(explain(&[]).stderr.contains("elu is assumed, as no nonlinearity was named"));
    assert_eq!(explain(&["--nonlinearity", "relu"]).stderr, "");
    let file = tempfile::NamedTempFile::new().unwrap();
    let base = ["-c", &weights, "--batch-sizes", "1", "--naive-passes", "1", "--nonlinearity", "relu"];
    run("bench", &[&base[..], &["--json", file.path().to_str().unwrap()]].concat()).succeeds();
    let report: Value = serde_json::from_slice(&std::fs::read(file.path()).unwrap()).unwrap();
    assert_eq!(report["model"]["nonlinearity"], "relu");
}

#[test]
fn bad_input_is_one_line_of_error_and_status_2() {
    let tiny = argument("tiny/v2/params.ckpt");
    run("bench", &["-c", &tiny, "--batch-sizes", "0"]).fails_with(&["--batch-sizes", "at least 1"]);
    run("bench", &["-c", &tiny, "--naive-passes", "0"]).fails_with(&["--naive-passes", "at least 1"]);
    run("bench", &["-c", &tiny, "--threads", "0"]).fails_with(&["--threads: expected 1 to 1024"]);
    run("bench", &["-c", "no/such/weights"]).fails_with(&["no/such/weights"]);
    run("bench", &["-c", &tiny, "--json", "no/such/directory/bench.json"]).fails_with(&["no/such/directory"]);
    let too_large = run("bench", &["-c", &tiny, "--batch-sizes", "1000000000"]);
    too_large.fails_with(&["would fit"]);
    assert!(!too_large.stderr.contains("--batch-size "), "{}: no flag of this program", too_large.stderr);
    for (device, flag, value) in [("cpu", "--strategy", "graph"), ("cuda", "--threads", "2")] {
        let refused = run("bench", &["-c", &tiny, "--device", device, flag, value]);
        refused.fails_with(&[flag, "; this runs on "]);
    }
    let alone = run("bench", &["--nonlinearity", "relu"]);
    assert!(alone.code == Some(2) && alone.stderr.contains("--checkpoint"), "{}", alone.stderr);
}

/// Checks that the numbers of a row of sounds fit each other.
fn fit(row: &Value) {
    let number = |key: &str| row[key].as_f64().unwrap_or_else(|| panic!("{key} in {row}"));
    let ratio = number("naive_seconds_per_sample") / number("cached_seconds_per_sample");
    assert!((number("speedup") / ratio - 1.0).abs() < 1e-9, "{row}");
    let sounds = row["batch"].as_f64().unwrap_or(1.0);
    let together = number("samples_per_second") * number("cached_seconds_per_sample");
    assert!((together / sounds - 1.0).abs() < 1e-9, "{row}");
    // The limits have been measured on this machine, on which others may be at work.
    assert!((1e-6..2.0).contains(&number("share_of_limit")), "{row}");
}

/// Runs with `--json` and `--plot`, and draws the report again: the table, the report and the figure.
fn measured(args: &[&str]) -> (String, Value, String) {
    let place = tempfile::tempdir().unwrap();
    let [json, plot, again] =
        ["b.json", "b.svg", "again.svg"].map(|name| place.path().join(name).to_str().unwrap().to_string());
    let done = run("bench", &[args, &["--naive-passes", "1", "--json", &json, "--plot", &plot]].concat());
    let report = std::fs::read(&json).map(|json| serde_json::from_slice(&json).unwrap());
    let stdout = done.succeeds().stdout;
    run("bench", &["--from-json", &json, "--plot", &again]).succeeds();
    let drawn = std::fs::read_to_string(&plot).unwrap();
    assert_eq!(drawn, std::fs::read_to_string(&again).unwrap());
    (stdout, report.unwrap(), drawn)
}

#[test]
fn sounds_are_timed_sample_by_sample() {
    let weights = argument("wavenet_gc/model.ckpt-72000");
    let (stdout, report, figure) = measured(&["-c", &weights, "--batch-sizes", "1,3", "--precision", "bf16"]);
    assert_eq!((cells(&stdout, 1).len(), cells(&stdout, 3).len()), (1, 1), "{stdout}");
    assert!(report["limit"]["flops"].as_f64().unwrap() > 0.0, "{report}");
    assert_eq!(
        (&report["model"]["model"], &report["machine"]["precision"]),
        (&"wavenet".into(), &"bf16".into())
    );
    let rate = report["model"]["sample_rate"].as_f64().unwrap();
    let rows = report["results"].as_array().unwrap();
    assert_eq!(rows.iter().map(|row| row["batch"].as_u64().unwrap()).collect::<Vec<_>>(), [1, 3]);
    for row in rows {
        fit(row);
        let real = 1.0 / (rate * row["cached_seconds_per_sample"].as_f64().unwrap());
        assert!((row["realtime_factor"].as_f64().unwrap() / real - 1.0).abs() < 1e-9, "{row}");
    }
    assert!(figure.contains("WaveNet of") && !figure.contains("(paper)"), "{figure}");
    let phases = run("bench", &["-c", &weights, "--batch-sizes", "2", "--phases"]).succeeds();
    assert_eq!(cells(&phases.stdout, 2)[0].len(), 8, "{}", phases.stdout);
    let explain = run("bench", &["-c", &weights, "--batch-sizes", "1,40", "--explain"]).succeeds().stdout;
    assert!(explain.contains("sounds of 16000 samples") && !explain.contains("image"), "{explain}");
    for batch in [1, 40] {
        let rows = cells(&explain, batch);
        let [first, second] = [0, 1].map(|row: usize| rows[row].last().unwrap().parse::<f64>().unwrap());
        assert!(rows.len() == 2 && 0.0 < first && first <= second, "{explain}");
    }
}

#[test]
fn the_paper_s_network_of_sounds_is_timed_over_its_layers() {
    let (stdout, report, figure) = measured(&["--model", "fast-wavenet", "--layers", "1..3"]);
    let rows = report["results"].as_array().unwrap();
    for (row, (layers, field, paper)) in rows.iter().zip([(1, 3, 3.0), (2, 7, 2.2), (3, 15, 3.1)]) {
        fit(row);
        let found = ["layers", "receptive_field"].map(|key| row[key].as_u64().unwrap());
        assert_eq!((found, row["paper_speedup"].as_f64()), ([layers, field], Some(paper)));
        assert_eq!(cells(&stdout, layers as usize)[0].last().unwrap(), &paper.to_string());
    }
    assert_eq!(rows.len(), 3);
    assert_eq!(rows[2]["paper_naive_seconds_per_sample"].as_f64(), Some(0.0064));
    // Six layers of two matrices, the first of which reads one number; the output's matrix and its bias.
    let parameters = 2 * 128 + 5 * 2 * 128 * 128 + 128 * 256 + 256;
    assert_eq!(rows[2]["parameters"], parameters);
    for words in ["layers of each of two blocks", "(paper)", "22.4"] {
        assert!(figure.contains(words), "{words} in {figure}");
    }
    let (_, list, _) = measured(&["--model", "fast-wavenet", "--layers", "2"]);
    assert_eq!(list["results"].as_array().unwrap().len(), 1);
}

#[test]
fn flags_of_other_models_are_one_line_of_error_and_status_2() {
    let sounds = argument("wavenet_tiny/model.ckpt-72000");
    run("bench", &["--layers", "3"]).fails_with(&["--layers", "--model fast-wavenet"]);
    for layers in ["0", "3..2", "1..22", "1,,2", "a..b", ""] {
        let refused = run("bench", &["--model", "fast-wavenet", "--layers", layers]);
        refused.fails_with(&["--layers", "expected A..B with A up to B"]);
    }
    let fast = |more: &[&str]| run("bench", &[&["--model", "fast-wavenet"], more].concat());
    fast(&["--batch-sizes", "2"]).fails_with(&["--batch-sizes", "one sound"]);
    fast(&["--phases"]).fails_with(&["--phases", "one sound"]);
    fast(&["--explain"]).fails_with(&["--explain", "one sound"]);
    fast(&["-c", &sounds]).fails_with(&["--model", "--checkpoint"]);
    run("bench", &["-c", &sounds, "--profile-rows", "0..3"]).fails_with(&["--profile-rows", "of images"]);
    // What would be ignored.
    let params = argument("wavenet_tiny/wavenet_params.json");
    run("bench", &["--model", "wavenet", "--params", &params]).fails_with(&["--model", "--params"]);
    for (instead, beside) in [
        ("--phases", &["--json", "x.json"][..]),
        ("--explain", &["--plot", "x.svg"]),
        ("--explain", &["--naive-passes", "2"]),
        ("--explain", &["--phases"]),
    ] {
        let refused = run("bench", &[&["-c", &sounds, instead], beside].concat());
        refused.fails_with(&[instead, beside[0], "cannot be used with"]);
    }
    run("bench", &["-c", &sounds, "--batch-sizes", "1000000000"]).fails_with(&["would fit"]);
    run("bench", &["--model", "wave"]).fails_with(&["--model", "fast-wavenet"]);
}
