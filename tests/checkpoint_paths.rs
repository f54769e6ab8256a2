//! What a user may point at instead of a checkpoint: the directory that it is in, TensorFlow's note of the
//! latest one, and files of every other kind, each of which is named with what to give instead.

#[path = "support/refusals.rs"]
mod refusals;
#[path = "support/tables.rs"]
mod tables;

use std::fs;

use fast_pixel_cnn::checkpoint::{Checkpoint, Format};
use refusals::*;
use tables::*;

impl Directory {
    /// With the sound V1 checkpoint `name`.
    fn with_v1(self, name: &str) -> Directory {
        self.with(name, &table(&v1_entries()))
    }

    /// With the sound V2 checkpoint `prefix`.
    fn with_v2(self, prefix: &str) -> Directory {
        let (entries, data) = v2_entries();
        self.with(&format!("{prefix}.index"), &table(&entries))
            .with(&format!("{prefix}.data-00000-of-00001"), &data)
    }

    /// What is opened for `name`, less the directory.
    fn opened(&self, name: &str) -> (String, Format) {
        let mut checkpoint = Checkpoint::open(&self.path(name)).unwrap();
        assert_eq!(checkpoint.read_f32("w").unwrap(), [1.5, -2.0]);
        let path = checkpoint.path().strip_prefix(self.path("")).unwrap();
        (path.to_str().unwrap().to_string(), checkpoint.format())
    }
}

#[test]
fn a_directory_stands_for_the_one_checkpoint_in_it() {
    let v1 = Directory::new().with_v1("anything").with("notes.txt", b"not a checkpoint").with("empty", b"");
    assert_eq!(v1.opened(""), ("anything".into(), Format::V1));
    let v2 = Directory::new().with_v2("model.ckpt-7").with("model.ckpt-7.meta", b"\x0a\x05graph");
    // What macOS keeps beside a file, and what TensorFlow has not finished.
    let v2 = v2.with("._model.ckpt-7.index", b"\0\x05\x16\x07");
    let v2 = v2.with("model.ckpt-8.index.tempstate123", &table(&v1_entries()));
    assert_eq!(v2.opened(""), ("model.ckpt-7".into(), Format::V2));
    let sharded = Directory::new().with_v1("p-00000-of-00001");
    assert_eq!(sharded.opened(""), ("p".into(), Format::V1));
    // A prefix is one checkpoint though its index is missing, and the index is what is missing.
    let cut = Directory::new().with("m.data-00000-of-00001", b"");
    assert!(cut.refusal("").starts_with("m.index: cannot open: "));
}

#[test]
fn a_choice_of_checkpoints_is_the_user_s() {
    let directory = Directory::new().with_v1("b").with_v2("a").with_v1("c-00000-of-00001");
    assert_eq!(directory.refusal_of_all(), "a directory of 3 checkpoints: a, b, c; give one of them");
    let mut many = Directory::new();
    for step in 0..300 {
        many = many.with_v1(&format!("model.ckpt-{step:05}"));
    }
    let message = many.refusal_of_all();
    assert!(
        message.starts_with("a directory of 300 checkpoints: model.ckpt-00000, model.ckpt-00001"),
        "{message}"
    );
    assert!(message.ends_with(" more; give one of them") && message.len() < 250, "{message}");
    let none = "a directory with neither a checkpoint nor model.json in it; give a checkpoint of TensorFlow";
    assert!(Directory::new().refusal_of_all().starts_with(none));
    assert!(Directory::new().with("a.txt", b"text").refusal_of_all().starts_with(none));
    let saved = Directory::new().with("saved_model.pb", b"\x08\x01\x12\x00");
    fs::create_dir(saved.path("variables")).unwrap();
    let saved = saved.with_v2("variables/variables");
    assert_eq!(
        saved.refusal_of_all(),
        "the directory of a TensorFlow SavedModel; give variables/variables in it"
    );
    assert_eq!(saved.opened("variables"), ("variables/variables".into(), Format::V2));
}

impl Directory {
    /// The message with which the directory itself is refused, less its name.
    fn refusal_of_all(&self) -> String {
        let directory = self.path("");
        let directory = directory.to_str().unwrap().trim_end_matches('/');
        let message = Checkpoint::open(directory.as_ref()).unwrap_err().to_string();
        message.strip_prefix(&format!("{directory}: ")).unwrap_or_else(|| panic!("{message}")).to_string()
    }
}

#[test]
fn a_note_stands_for_the_checkpoint_that_it_names() {
    let note = |name: &str| {
        format!("model_checkpoint_path: \"{name}\"\nall_model_checkpoint_paths: \"a\"\n").into_bytes()
    };
    let directory = Directory::new().with_v1("a").with_v2("b").with_v1("gr\u{fc}n");
    for (name, expected, format) in [
        ("b", "b", Format::V2),
        ("a", "a", Format::V1),
        ("./b", "./b", Format::V2),
        ("gr\\303\\274n", "gr\u{fc}n", Format::V1),
        // Where training ran, which is not here.
        ("/data/runs/7/b", "b", Format::V2),
    ] {
        let directory = Directory::with_all_of(&directory).with("checkpoint", &note(name));
        for given in ["checkpoint", ""] {
            let (opened, found) = directory.opened(given);
            assert_eq!((opened.trim_start_matches("./"), found), (expected.trim_start_matches("./"), format));
        }
    }
    let named = Directory::with_all_of(&directory).with("checkpoint", &note("c"));
    let expected = "checkpoint: TensorFlow's note of its latest checkpoint, \"c\", which is not there; give \
                    another: \
                    a, b, gr\u{fc}n";
    assert_eq!(named.refusal("checkpoint"), expected);
    assert_eq!(named.refusal(""), expected);
    let alone = Directory::new().with("checkpoint", &note("c"));
    assert!(
        alone
            .refusal("")
            .ends_with("which is not there; nor is another: copy the checkpoint's files beside it")
    );
    for broken in ["model_checkpoint_path:", "model_checkpoint_path: \"\"", "model_checkpoint_path: b\n"] {
        let message = Directory::with_all_of(&directory).with("checkpoint", broken.as_bytes()).refusal("");
        let expected = "checkpoint: model_checkpoint_path: expected a path in quotation marks, found ";
        assert!(message.starts_with(expected), "{message}");
    }
    // A V1 checkpoint may have that name itself.
    assert_eq!(Directory::new().with_v1("checkpoint").opened(""), ("checkpoint".into(), Format::V1));
}

impl Directory {
    /// A directory with the same files.
    fn with_all_of(other: &Directory) -> Directory {
        let mut directory = Directory::new();
        for entry in fs::read_dir(other.path("")).unwrap() {
            let entry = entry.unwrap();
            directory = directory.with(entry.file_name().to_str().unwrap(), &fs::read(entry.path()).unwrap());
        }
        directory
    }
}

#[test]
fn files_of_other_kinds_are_named() {
    let mut tar = vec![b'a'; 512];
    tar[257..262].copy_from_slice(b"ustar");
    let cut =
        "it begins as a TensorFlow checkpoint does but does not end as one: it is cut off; copy or download";
    let neither = "it neither begins nor ends as a checkpoint; give a file of PyTorch's or safetensors, one TensorFlow V1";
    let safetensors = b"\x3d\0\0\0\0\0\0\0{\"a\": {\"dtype\": \"F32\", \"shape\": [1]}}";
    let mut sound = table(&v1_entries());
    sound.truncate(sound.len() - 1);
    let cases: [(&[u8], &str); 25] = [
        (b"", "length: expected a checkpoint, found an empty file"),
        (b"\0\0\x01", cut),
        (&[0; 60], cut),
        (&sound, cut),
        (b"PK\x03\x04\x14\0\0\0\x08\0weights.ckpt", "a zip archive; unzip it"),
        (
            b"PK\x03\x04\0\0\x08\x08\0\0archive/data.pkl",
            "archive: expected a whole and valid PyTorch file, found ",
        ),
        (b"\x80\x02\x8a\x0al\xfc\x9cF\xf9", "a Python pickle that torch.save did not write; "),
        (b"\x1f\x8b\x08\0\0\0\0\0", "a compressed file (gzip"),
        (b"BZh91AY&SY", "a compressed file (gzip"),
        (&tar, "a tar archive; unpack it"),
        (b"<!DOCTYPE html>\n<html>", "an HTML page; the download went wrong"),
        (b"\xef\xbb\xbf<HTML>", "an HTML page; "),
        (b"\n  <html lang=en>", "an HTML page; "),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
            "a Git LFS pointer; run `git lfs pull`",
        ),
        (b"\x89HDF\r\n\x1a\n\0\0", "an HDF5 file (Keras); "),
        (b"\x93NUMPY\x01\0", "a NumPy array; give the directory"),
        (safetensors, "the header: expected at most 37 bytes, found 61"),
        // The length of a header may be a multiple of 65536.
        (b"\0\0\x01\0\0\0\0\0{\"a\": {}}", "the header: expected at most 9 bytes, found 65536"),
        (b"\x82\xa6params\x81\xa8conv2d_0", "a MessagePack file (Flax); a checkpoint of TensorFlow, PyTorch"),
        (b"\xde\0\x10\xa6params\x81", "a MessagePack file (Flax); "),
        (
            b"\x08\x01\x12\xea\x3a\x0a",
            "the graph of a TensorFlow SavedModel; give variables/variables, in the",
        ),
        (b"{\"schema\": 1}", "a JSON file; give the directory of converted weights that it is in"),
        (b"something else that is long enough to have a footer", neither),
        (&[1; 47], neither),
        // Like a map of MessagePack, but with no text for its first key.
        (b"\x82\xa6par\0ms\x81", neither),
    ];
    for (bytes, expected) in cases {
        let message = v1(bytes);
        assert!(message.starts_with(expected), "{message}\nis not\n{expected}");
    }
}

#[test]
fn graphs_are_named_and_the_checkpoint_beside_them() {
    let graph = b"\x0a\xe2\x06\x12\xbb\x06\x0a\x5e";
    let directory = Directory::new().with("params_cifar.ckpt.meta", graph).with("graph.pb", graph);
    let directory = directory.with("graph.pbtxt", b"node { name: \"x\" }").with_v1("v1.meta");
    assert_eq!(
        directory.refusal("params_cifar.ckpt.meta"),
        "params_cifar.ckpt.meta: the graph of a TensorFlow checkpoint, without its values; give \
         params_cifar.ckpt, without .meta: the values are in the files beside it"
    );
    for name in ["graph.pb", "graph.pbtxt"] {
        let expected = format!("{name}: a TensorFlow graph; give the checkpoint that it was made from");
        assert_eq!(directory.refusal(name), expected);
    }
    // Contents before names.
    assert_eq!(directory.opened("v1.meta"), ("v1.meta".into(), Format::V1));
}

#[test]
fn what_is_missing_is_named() {
    let directory = Directory::new();
    assert!(directory.refusal("none").starts_with("none: cannot open: "));
}

#[cfg(unix)]
#[test]
fn special_files_are_not_waited_for() {
    let directory = Directory::new().with_v1("a");
    let created = std::process::Command::new("mkfifo").arg(directory.path("p")).status();
    if created.is_ok_and(|status| status.success()) {
        assert_eq!(directory.refusal("p"), "p: a named pipe; give a regular file");
        assert_eq!(directory.opened("").0, "a");
        fs::rename(directory.path("p"), directory.path("checkpoint")).unwrap();
        assert_eq!(directory.opened("").0, "a");
        let directory = directory.with_v2("c");
        fs::rename(directory.path("checkpoint"), directory.path("c.data-00000-of-00001")).unwrap();
        assert!(directory.refusal("c").starts_with("c.data-00000-of-00001: a named pipe; "));
    } else {
        println!("no named pipe was tried: mkfifo cannot make one here");
    }
    let message = Checkpoint::open("/dev/null".as_ref()).unwrap_err().to_string();
    assert_eq!(message, "/dev/null: a device; give a regular file");
}

#[cfg(unix)]
#[test]
fn files_without_permission_say_so() {
    use std::os::unix::fs::PermissionsExt;
    let directory = Directory::new().with_v1("c");
    fs::set_permissions(directory.path("c"), fs::Permissions::from_mode(0o000)).unwrap();
    if fs::read(directory.path("c")).is_err() {
        assert!(directory.refusal("c").starts_with("c: cannot open: Permission denied"));
        // In a directory it may be the checkpoint, unless there is another.
        assert!(directory.refusal("").starts_with("c: cannot read: Permission denied"));
        assert_eq!(directory.with_v1("d").opened("").0, "d");
    } else {
        println!("no file without permission was tried: this user reads everything");
    }
}
