//! The files of `generate` as a user meets them: single images, what an earlier run left, two runs at once, and
//! runs that are ended.

#[path = "common/models.rs"]
mod models;
#[path = "common/run.rs"]
mod run;

use std::fs;
use std::path::{Path, PathBuf};

use fast_pixel_cnn::media::{images, npy};
use models::{cond, tiny};
use ndarray::Axis;
use run::{Run, run};
use serde_json::Value;
use tempfile::TempDir;

/// A directory to save to, which does not exist at first.
struct Place(TempDir);

impl Place {
    fn new() -> Place {
        Place(tempfile::tempdir().unwrap())
    }

    fn out(&self) -> PathBuf {
        self.0.path().join("out")
    }

    fn at(&self, name: &str) -> PathBuf {
        self.out().join(name)
    }

    /// Runs the program for images of 8x8.
    fn generate(&self, args: &[&str]) -> Run {
        let out = self.out().display().to_string();
        run("generate", &[args, &["-i", "8", "-v", &out]].concat())
    }

    /// The names in a directory.
    fn names(&self, directory: &str) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.at(directory)) else { return Vec::new() };
        let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// The names of the results.
    fn results(&self) -> Vec<String> {
        let mut names = self.names("");
        names.retain(|name| name != ".generate.json");
        names
    }
}

#[test]
fn single_images_are_those_of_the_arrays_by_their_index() {
    let (place, cond) = (Place::new(), cond());
    let run =
        place.generate(&["-c", &cond, "-n", "5", "-b", "2", "--first-index", "40", "--format", "npy,images"]);
    let run = run.succeeds();
    let names: Vec<String> = (40..45).map(|i| format!("{i:06}.png")).collect();
    assert_eq!(place.names("images"), names);
    assert_eq!(place.results(), ["images", "images.npy", "labels.npy", "run.json", "samples.npy"]);
    let last = run.stdout.lines().last().unwrap();
    assert_eq!(last, place.at("images").display().to_string());
    let files: Vec<_> = names.iter().map(|name| place.at("images").join(name)).collect();
    assert_eq!(
        images::read(&files, None, 3).unwrap(),
        images::read(&[place.at("images.npy")], None, 3).unwrap()
    );

    // A series can be made in parts, whatever changes no image; one image stays what it was.
    let more =
        ["-n", "2", "--first-index", "44", "--format", "images", "--threads", "1", "--naive", "--json"];
    let before = fs::read(place.at("images/000044.png")).unwrap();
    let run = place.generate(&[&["-c", &cond], &more[..]].concat()).succeeds();
    let json: Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(
        json["files"],
        serde_json::json!(["run.json", "images"].map(|name| place.at(name).display().to_string()))
    );
    assert_eq!((json["count"].as_u64(), json["interrupted"].as_bool()), (Some(2), Some(false)));
    assert_eq!(place.names("images").len(), 6);
    assert_eq!(fs::read(place.at("images/000044.png")).unwrap(), before);
    // The arrays were those of the run before.
    assert_eq!(place.results(), ["images", "run.json"]);
}

#[test]
fn single_images_of_another_series_are_neither_mixed_nor_removed() {
    let (place, cond) = (Place::new(), cond());
    let images = ["-c", &cond, "-n", "2", "--format", "images"];
    place.generate(&images).succeeds();
    let other = "images: it holds images of another run";
    for more in [&["-s", "1"][..], &["--class", "3"], &["--raw"], &["--precision", "bf16"]] {
        place.generate(&[&images, more].concat()).fails_with(&[other]);
    }
    place.generate(&["-c", &tiny(), "-n", "2"]).fails_with(&[other]);
    // A grid of the same series may stand beside them.
    place.generate(&["-c", &cond, "-n", "3", "--format", "png"]).succeeds();
    assert_eq!(place.results(), ["images", "run.json", "samples.png"]);
    fs::rename(place.at("images"), place.0.path().join("aside")).unwrap();
    place.generate(&["-c", &cond, "-s", "1", "-n", "2"]).succeeds();
    // A directory that the program did not make is nothing to write into.
    fs::create_dir(place.at("images")).unwrap();
    fs::write(place.at("images/cat.png"), "").unwrap();
    let run = place.generate(&["-c", &tiny(), "-n", "2"]).succeeds();
    assert!(run.stderr.starts_with("warning: ") && run.stderr.contains("images is not of this run"));
    place.generate(&images).fails_with(&["images: it holds files that this program did not make"]);
    fs::remove_dir_all(place.at("images")).unwrap();
    fs::write(place.at("images"), "").unwrap();
    place.generate(&images).fails_with(&["images: a file stands where a directory is to be made"]);
}

#[test]
fn an_earlier_run_s_files_do_not_stay_as_if_they_were_of_this_one() {
    let place = Place::new();
    place.generate(&["-c", &cond(), "-n", "3"]).succeeds();
    assert_eq!(place.results(), ["images.npy", "labels.npy", "run.json", "samples.npy", "samples.png"]);
    place.generate(&["-c", &tiny(), "-n", "2"]).succeeds();
    assert_eq!(place.results(), ["images.npy", "run.json", "samples.npy", "samples.png"]);
    place.generate(&["-c", &tiny(), "-n", "2", "--format", "png"]).succeeds();
    assert_eq!(place.results(), ["run.json", "samples.png"]);
    // What the user put there stays, and so does what he changed.
    npy::write(&place.at("labels.npy"), &ndarray::array![1i64].view()).unwrap();
    fs::write(place.at("samples.png"), "mine").unwrap();
    fs::write(place.at("notes"), "mine").unwrap();
    let run = place.generate(&["-c", &tiny(), "-n", "2", "--format", "npy"]).succeeds();
    assert_eq!(run.stderr.lines().count(), 2, "{}", run.stderr);
    for name in ["labels.npy", "samples.png"] {
        assert!(run.stderr.contains(&format!("{name} is not of this run: it stays")), "{}", run.stderr);
    }
    assert_eq!(
        place.results(),
        ["images.npy", "labels.npy", "notes", "run.json", "samples.npy", "samples.png"]
    );
    assert_eq!(fs::read(place.at("samples.png")).unwrap(), b"mine");
}

#[test]
fn an_animation_may_go_into_the_directory_that_is_made() {
    let (place, tiny) = (Place::new(), tiny());
    let file = place.at("a.gif").display().to_string();
    place.generate(&["-c", &tiny, "-n", "2", "--animate", &file]).succeeds();
    assert!(place.at("a.gif").is_file());
    let other = Place::new();
    let below = other.at("none/a.gif").display().to_string();
    other.generate(&["-c", &tiny, "-n", "2", "--animate", &below]).fails_with(&["none/a.gif: cannot create"]);
    assert!(!other.out().exists(), "a directory was left behind");
}

#[test]
fn what_has_no_room_is_refused_before_anything_is_generated() {
    let (place, tiny) = (Place::new(), tiny());
    // A block for each: more than any disk has.
    let many = ["-c", &tiny, "-n", "4294967295", "--format", "images"];
    let available = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let available = available.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kibibytes = available.and_then(|text| text.trim().trim_end_matches(" kB").parse::<u64>().ok());
    let fits = kibibytes.is_some_and(|kibibytes| kibibytes > 48 << 20);
    let part = if fits { "MiB are needed; make room" } else { "--count: memory holds" };
    place.generate(&many).fails_with(&[part]);
    assert!(!place.out().exists());
}

#[cfg(unix)]
#[test]
fn permissions_of_what_is_replaced_are_kept() {
    use std::os::unix::fs::PermissionsExt;
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    let (place, tiny) = (Place::new(), tiny());
    let run = |seed: &str| place.generate(&["-c", &tiny, "-n", "2", "-s", seed]).succeeds();
    run("1");
    let usual = mode(&place.at("samples.png"));
    for (name, bits) in [("samples.png", 0o600), ("samples.npy", 0o640)] {
        fs::set_permissions(place.at(name), fs::Permissions::from_mode(bits)).unwrap();
    }
    run("2");
    assert_eq!(mode(&place.at("samples.png")), 0o600);
    assert_eq!(mode(&place.at("samples.npy")), 0o640);
    assert_eq!(mode(&place.at("images.npy")), usual);
    // A link is replaced by a file, whose permissions are not the link's.
    fs::rename(place.at("images.npy"), place.0.path().join("elsewhere")).unwrap();
    std::os::unix::fs::symlink(place.0.path().join("elsewhere"), place.at("images.npy")).unwrap();
    let before = fs::read(place.0.path().join("elsewhere")).unwrap();
    run("3");
    assert_eq!(mode(&place.at("images.npy")), usual);
    assert_eq!(fs::read(place.0.path().join("elsewhere")).unwrap(), before);
}

#[cfg(target_os = "linux")]
#[test]
fn single_images_alone_take_no_memory_once_they_are_written() {
    let tiny = tiny();
    let peak = |count: &str, format: &str| {
        let place = Place::new();
        let args = ["-c", &tiny, "-b", "50", "--threads", "1", "--json", "-n", count, "--format", format];
        let json: Value = serde_json::from_str(&place.generate(&args).succeeds().stdout).unwrap();
        json["peak_resident_bytes"].as_u64().unwrap() as f64
    };
    // Twenty batches, after which the threads' heaps have what they keep for the next.
    let (few, many) = (peak("1000", "images"), peak("3900", "images"));
    // 2,900 images of 8x8 take 2.2 MB as floats.
    assert!(many - few < 6e5, "{few} bytes for 1000 images, {many} for 3900");
    // Twice as many, since what loading has left free takes in some.
    let kept = peak("6000", "npy");
    assert!(kept - few > 1.5e6, "{few} bytes for 1000 images, {kept} for 6000 that are kept");
}

#[cfg(unix)]
mod ended {
    use std::process::{Child, Command, Output, Stdio};
    use std::time::{Duration, Instant};

    use assert_cmd::cargo::CommandCargoExt;

    use super::*;

    /// A run of hours, by a shell that may set signals up before.
    fn start(place: &Place, before: &str, args: &[&str]) -> Child {
        let program = Command::cargo_bin("generate").unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", &format!("{before} exec \"$@\""), "sh"]).arg(program.get_program());
        command.args(["-n", "50000", "-b", "2", "-v"]).arg(place.out()).args(args);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    fn wait_for(what: impl Fn() -> bool) {
        let start = Instant::now();
        while !what() {
            assert!(start.elapsed() < Duration::from_secs(60), "it does not come");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn send(child: &Child, signal: &str) {
        assert!(Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap().success());
    }

    fn images(place: &Place) -> usize {
        place.names("images").iter().filter(|name| !name.starts_with('.')).count()
    }

    fn end(child: Child) -> (Option<i32>, String) {
        let Output { status, stderr, .. } = child.wait_with_output().unwrap();
        (status.code(), String::from_utf8(stderr).unwrap())
    }

    #[test]
    fn each_signal_ends_a_run_after_the_batches_that_are_finished() {
        for (signal, code) in [("-INT", 130), ("-TERM", 143), ("-HUP", 129)] {
            let place = Place::new();
            let child = start(&place, "", &["--format", "images,npy"]);
            wait_for(|| images(&place) >= 4);
            send(&child, signal);
            if signal == "-HUP" {
                // As when a terminal closes: from the kernel and from the shell.
                send(&child, signal);
            }
            let (found, stderr) = end(child);
            assert_eq!(found, Some(code), "{signal}: {stderr}");
            let count = images(&place);
            assert_eq!(stderr, format!("warning: interrupted: {count} of 50000 images were finished\n"));
            let arrays = images::read(&[place.at("images.npy")], None, 3).unwrap();
            assert_eq!(arrays.dim().0, count);
            let range = serde_json::json!([{ "first_index": 0, "count": count }]);
            let told: Value = serde_json::from_slice(&fs::read(place.at("run.json")).unwrap()).unwrap();
            assert_eq!((&told["files"]["ranges"], &told["singles"]["ranges"]), (&range, &range));
            let last = place.at(&format!("images/{:06}.png", count - 1));
            assert_eq!(
                images::read(&[last], None, 3).unwrap().index_axis(Axis(0), 0),
                arrays.index_axis(Axis(0), count - 1)
            );
        }
    }

    #[test]
    fn a_signal_that_was_ignored_from_the_start_stays_so() {
        let place = Place::new();
        let child = start(&place, "trap '' HUP;", &["--format", "images"]);
        wait_for(|| images(&place) >= 2);
        send(&child, "-HUP");
        let now = images(&place);
        wait_for(|| images(&place) >= now + 6);
        send(&child, "-TERM");
        assert_eq!(end(child).0, Some(143));
    }

    #[test]
    fn one_directory_is_for_one_run_at_a_time_and_a_killed_one_leaves_nothing() {
        let (place, tiny) = (Place::new(), tiny());
        let child = start(&place, "", &["--format", "images"]);
        wait_for(|| images(&place) >= 2);
        place.generate(&["-c", &tiny, "-n", "2"]).fails_with(&["another run is at work in this directory"]);
        send(&child, "-KILL");
        assert_eq!(end(child).0, None);
        // As a run that is killed while it writes leaves them; wherever it was, this is all there can be.
        for directory in ["", "images"] {
            fs::write(place.at(directory).join(".fast-pixel-cnn-Ab3dE6gH.draft"), "half").unwrap();
        }
        let count = images(&place);
        // Of what series the images are was told before the first of them.
        let told: Value = serde_json::from_slice(&fs::read(place.at("run.json")).unwrap()).unwrap();
        assert_eq!((&told["files"], &told["singles"]["directory"]), (&Value::Null, &"images".into()));
        // The same series, with the demo model.
        let out = place.out().display().to_string();
        run("generate", &["-n", "2", "-v", &out, "--format", "images,png"]).succeeds();
        assert_eq!(place.names(""), [".generate.json", "images", "run.json", "samples.png"]);
        let names = place.names("images");
        assert_eq!((names.len(), images(&place)), (count, count), "{names:?}");
        let whole: Vec<_> = names.iter().map(|name| place.at("images").join(name)).collect();
        assert_eq!(images::read(&whole, None, 3).unwrap().dim().0, count);
    }
}
