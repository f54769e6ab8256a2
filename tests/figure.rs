//! The figure that `bench` draws, read back as the text an SVG is.

#[path = "common/models.rs"]
mod models;
#[path = "common/run.rs"]
mod run;

use std::fs;
use std::path::PathBuf;

use fast_pixel_cnn::media::figure::PAPER;
use models::tiny;
use run::{Run, run};
use tempfile::TempDir;

/// A directory with a report `bench.json`, and the figure's path in it.
struct Place {
    dir: TempDir,
}

impl Place {
    fn new(report: &str) -> Place {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("bench.json"), report).unwrap();
        Place { dir }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn draw(&self, figure: &str) -> Run {
        let [json, figure] = ["bench.json", figure].map(|name| self.at(name).display().to_string());
        run("bench", &["--from-json", &json, "--plot", &figure])
    }
}

fn report(results: &str) -> String {
    let machine =
        r#""machine": {"processor": "Cores &\u0001 \"<Sons>\"", "threads": 3, "instruction_set": "avx2"}"#;
    let model = r#""model": {"parameters": 53700000, "height": 32, "width": 64, "nr_filters": 160}"#;
    format!(r#"{{"schema": "fast-pixel-cnn/bench/1", {machine}, {model}, "results": [{results}]}}"#)
}

/// The texts of an SVG, in order; `plotters` writes each on a line of its own.
fn texts(svg: &str) -> Vec<&str> {
    let texts = svg.split("<text ").skip(1).map(|t| t.split('>').nth(1).unwrap());
    texts.map(|t| t.strip_suffix("</text").unwrap().trim()).collect()
}

/// Left edge, top and height of each rectangle of a colour.
fn rectangles(svg: &str, fill: &str) -> Vec<[f64; 3]> {
    let number = |line: &str, key: &str| {
        let value = line.split(&format!(" {key}=\"")).nth(1).unwrap();
        value.split('"').next().unwrap().parse::<f64>().unwrap()
    };
    let lines = svg.lines().filter(|l| l.starts_with("<rect") && l.contains(fill));
    lines.map(|l| ["x", "y", "height"].map(|key| number(l, key))).collect()
}

#[test]
fn the_figure_of_a_report_has_the_paper_s_bars_and_the_measured_ones() {
    let place = Place::new(&report(
        r#"{"batch": 3, "speedup": 104.4, "naive_seconds": 1.0}, {"batch": 1, "speedup": 29.04}, {"batch": 512, "speedup": 819}"#,
    ));
    let done = place.draw("figure.svg").succeeds();
    assert_eq!((done.stdout.as_str(), done.stderr.as_str()), ("", ""));
    let svg = fs::read_to_string(place.at("figure.svg")).unwrap();
    let texts = texts(&svg);
    for (batch, speedup) in PAPER {
        assert!(texts.contains(&batch.to_string().as_str()), "{batch} in {texts:?}");
        let digits = usize::from(speedup < 100.0);
        assert!(texts.contains(&format!("{speedup:.digits$}").as_str()), "{speedup} in {texts:?}");
    }
    for expected in ["3", "512", "104", "29.0", "819", "Tesla K40, TensorFlow (paper)"] {
        assert!(texts.contains(&expected), "{expected} in {texts:?}");
    }
    assert!(texts.contains(&"Cores &amp; &quot;&lt;Sons&gt;&quot;, 3 threads (measured)"), "{texts:?}");
    assert!(texts.iter().any(|t| t.contains("53.7 million parameters") && t.contains("32x64")), "{texts:?}");

    // The first rectangle of each colour is the legend's; the others go by batch size.
    let [paper, measured] = ["#F2B45F", "#20508E"].map(|fill| rectangles(&svg, fill)[1..].to_vec());
    assert_eq!((paper.len(), measured.len()), (PAPER.len(), 3));
    let bottom = paper[0][1] + paper[0][2];
    for [_, top, height] in paper.iter().chain(&measured) {
        assert!((top + height - bottom).abs() <= 1.0, "{top} + {height} is not at {bottom}");
    }
    // Logarithmic: heights are as the logarithms of the numbers, up to a rounding of pixels.
    let unit = paper[8][2] / 183f64.ln();
    let all =
        PAPER.iter().map(|(_, s)| *s).zip(&paper).chain([29.04, 104.4, 819.0].into_iter().zip(&measured));
    for (speedup, [_, _, height]) in all {
        assert!((height - unit * speedup.ln()).abs() <= 3.0, "{speedup}: {height}");
    }
    // 1 beside the paper's 1, then 3 between the paper's 2 and 4, 512 behind all.
    let left = |bar: [f64; 3]| bar[0];
    assert!(left(paper[0]) < left(measured[0]) && left(measured[0]) < left(paper[1]));
    assert!(left(paper[1]) < left(measured[1]) && left(measured[1]) < left(paper[2]));
    assert!(left(measured[2]) > left(paper[8]));
}

#[test]
fn a_run_draws_what_it_measured_and_its_report_draws_the_same() {
    let place = Place::new("");
    let [json, figure] = ["bench.json", "run.svg"].map(|name| place.at(name).display().to_string());
    let args = ["-c", &tiny(), "--batch-sizes", "2", "--naive-passes", "1"];
    run("bench", &[&args[..], &["--json", &json, "--plot", &figure]].concat()).succeeds();
    place.draw("again.SVG").succeeds();
    let drawn = fs::read_to_string(&figure).unwrap();
    assert_eq!(drawn, fs::read_to_string(place.at("again.SVG")).unwrap());
    assert_eq!(rectangles(&drawn, "#20508E").len(), 2);
}

#[test]
fn reports_that_cannot_be_drawn_are_one_line_of_error() {
    let good = report(r#"{"batch": 1, "speedup": 2}"#);
    let other = good.replace("bench/1", "bench/2");
    let anonymous = good.replace("processor", "process");
    let many: Vec<_> = (1000..1100).map(|b| format!(r#"{{"batch": {b}, "speedup": 2}}"#)).collect();
    let cases = [
        ("", "JSON"),
        ("{\"schema\": 1", "JSON"),
        ("[1]\n[2]", "JSON"),
        (&good[..good.len() - 1], "JSON"),
        (
            &other,
            "fast-pixel-cnn/bench-sounds/1 or fast-pixel-cnn/bench-layers/1, found \"fast-pixel-cnn/bench/2\"",
        ),
        (&anonymous, "processor"),
        (&report(""), "results"),
        (&report(&many.join(",")), "bars"),
        (&report(r#"{"batch": 1, "speedup": 0}"#), "found 1 and 0"),
        (&report(r#"{"batch": 1, "speedup": -1}"#), "speed-up"),
        (&report(r#"{"batch": 1, "speedup": 1e300}"#), "speed-up"),
        (&report(r#"{"batch": 0, "speedup": 1}"#), "a batch of 1 or more"),
        (&report(r#"{"batch": -1, "speedup": 1}"#), "JSON"),
    ];
    for (text, part) in cases {
        let place = Place::new(text);
        place.draw("figure.svg").fails_with(&["bench.json", part]);
        assert!(!place.at("figure.svg").exists());
    }
    let place = Place::new(&good);
    fs::remove_file(place.at("bench.json")).unwrap();
    place.draw("figure.svg").fails_with(&["bench.json: cannot"]);
    fs::create_dir(place.at("bench.json")).unwrap();
    place.draw("figure.svg").fails_with(&["bench.json: a directory"]);
    let figure = place.at("figure.svg").display().to_string();
    let endless = ["--from-json", "/dev/zero", "--plot", &figure];
    assert_eq!(run("bench", &endless).code, Some(2));
}

#[test]
fn a_path_that_cannot_be_written_is_refused_before_anything_is_measured() {
    let place = Place::new(&report(r#"{"batch": 1, "speedup": 2}"#));
    for name in ["figure.png", "figure", "figure.svg.txt"] {
        place.draw(name).fails_with(&[name, "ends in .svg"]);
    }
    place.draw("no/such/directory/figure.svg").fails_with(&["figure.svg: cannot create"]);
    fs::create_dir(place.at("taken.svg")).unwrap();
    place.draw("taken.svg").fails_with(&["taken.svg: a directory"]);
    // Hours of work, were it begun.
    let long = ["--naive-passes", "100000", "--plot"];
    for (name, part) in [("figure.gif", "ends in .svg"), ("no/such/directory/figure.svg", "cannot create")] {
        let path = place.at(name).display().to_string();
        run("bench", &[&long[..], &[&path]].concat()).fails_with(&[name, part]);
    }
    // A figure of an earlier run needs a place to be drawn, and measures nothing.
    let path = place.at("bench.json").display().to_string();
    for more in [&[][..], &["--plot", "a.svg", "--threads", "1"], &["--plot", "a.svg", "--batch-sizes", "1"]]
    {
        let refused = run("bench", &[&["--from-json", &path], more].concat());
        assert_eq!((refused.code, refused.stdout.as_str()), (Some(2), ""), "{more:?}");
    }
}
