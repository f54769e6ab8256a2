//! Directories of weights: what is saved is loaded, and every way in which a directory can be wrong is found
//! and named before its numbers are used.

#[path = "common/run.rs"]
mod run;

use std::fs;
use std::path::{Path, PathBuf};

use fast_pixel_cnn::cpu::{self, CpuEngine};
use fast_pixel_cnn::graph::ParameterKind;
use fast_pixel_cnn::weights::{Options, Weights};
use fast_pixel_cnn::{Error, Nonlinearity, PixelCnnPp, media::npy};
use ndarray::ArrayD;
use sha2::{Digest, Sha256};
use tempfile::TempDir;

const TINY: PixelCnnPp = PixelCnnPp {
    resnets: 1,
    filters: 4,
    mixtures: 2,
    channels: 3,
    classes: 3,
    nonlinearity: Nonlinearity::ConcatElu,
};

/// A saved model in a temporary directory.
struct Saved {
    _place: TempDir,
    directory: PathBuf,
}

impl Saved {
    fn new(config: PixelCnnPp) -> Saved {
        let place = tempfile::tempdir().unwrap();
        let directory = place.path().join("model");
        Weights::synthetic(config, 1).save(&directory).unwrap();
        Saved { _place: place, directory }
    }

    fn load(&self) -> Result<Weights, Error> {
        Weights::load(&self.directory)
    }

    /// Loads the weights and packs them, which reads every number.
    fn open(&self, threads: usize) -> Result<CpuEngine, Error> {
        CpuEngine::new(&self.load()?, &cpu::Options { threads: Some(threads), ..Default::default() })
    }

    /// The message with which the directory is refused: one line that names it.
    fn error(&self) -> String {
        let error = self.open(2).err().expect("the directory is broken").to_string();
        assert!(error.contains("model") && !error.contains('\n'), "{error}");
        error
    }

    fn edit_manifest(&self, edit: impl FnOnce(&mut serde_json::Value)) {
        let path = self.directory.join("model.json");
        let mut json = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        edit(&mut json);
        fs::write(&path, json.to_string()).unwrap();
    }

    /// Replaces an array and brings its hash up to date.
    fn edit_array(&self, file: &str, edit: impl FnOnce(ArrayD<f32>) -> ArrayD<f32>) {
        let path = self.directory.join(file);
        let array = edit(npy::read_f32(&path).unwrap());
        npy::write(&path, &array.view()).unwrap();
        let hash = Sha256::digest(fs::read(&path).unwrap());
        let hash: String = hash.iter().map(|b| format!("{b:02x}")).collect();
        self.edit_manifest(|json| json["sha256"][file] = hash.into());
    }
}

fn assert_contains(message: &str, parts: &[&str]) {
    for part in parts {
        assert!(message.contains(part), "{message}\nlacks: {part}");
    }
}

#[test]
fn what_is_saved_is_loaded() {
    for nonlinearity in [Nonlinearity::ConcatElu, Nonlinearity::Relu] {
        let config = PixelCnnPp { nonlinearity, ..TINY };
        let saved = Saved::new(config);
        let (weights, loaded) = (Weights::synthetic(config, 1), saved.load().unwrap());
        assert_eq!((loaded.config(), loaded.source()), (Some(&config.into()), weights.source()));
        for (_, name, _) in config.graph().arrays(false) {
            assert_eq!(loaded.array(&name).unwrap(), weights.array(&name).unwrap(), "{name}");
        }
        // 57 convolutions and dense layers of three arrays each, 16 class terms, model.json.
        let arrays = config.graph().arrays(false).count();
        assert_eq!(fs::read_dir(&saved.directory).unwrap().count(), arrays + 1);
    }
}

#[test]
fn weights_of_a_graph_made_by_hand_have_no_configuration_and_no_directory() {
    let place = tempfile::tempdir().unwrap();
    let weights = Weights::synthetic_for(TINY.graph(), 1);
    assert_eq!(weights.config(), None);
    let error = weights.save(&place.path().join("model")).unwrap_err().to_string();
    assert_contains(&error, &["weights: a directory tells a model by its configuration"]);
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0);
}

#[test]
fn a_directory_is_public_as_far_as_the_umask_lets_it() {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let saved = Saved::new(TINY);
        let sibling = saved.directory.with_file_name("sibling");
        fs::create_dir(&sibling).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode(&saved.directory), mode(&sibling));
        // An empty directory that is there keeps its permissions, whatever the umask, and so do not its files.
        for kept in [0o700, 0o750, 0o777, 0o2750] {
            let place = saved.directory.with_file_name("place");
            fs::create_dir(&place).unwrap();
            fs::set_permissions(&place, fs::Permissions::from_mode(kept)).unwrap();
            Weights::synthetic(TINY, 1).save(&place).unwrap();
            assert_eq!(mode(&place) & 0o7777, kept);
            assert_eq!(mode(&place.join("model.json")), mode(&saved.directory.join("model.json")));
            fs::remove_dir_all(&place).unwrap();
        }
    }
}

#[test]
fn nothing_is_overwritten() {
    let saved = Saved::new(TINY);
    let before = fs::read(saved.directory.join("model.json")).unwrap();
    let save = |path: &Path| Weights::synthetic(TINY, 2).save(path).map_err(|e| e.to_string());
    assert_contains(
        &save(&saved.directory).unwrap_err(),
        &["model: something is there already", "empty directory"],
    );
    assert_eq!(fs::read(saved.directory.join("model.json")).unwrap(), before);
    assert_contains(&save(&saved.directory.join("model.json")).unwrap_err(), &["something is there already"]);
    let within = saved.directory.join("model.json/new");
    assert_contains(&save(&within).unwrap_err(), &["model.json: cannot create a directory"]);
    assert_eq!(fs::read(saved.directory.join("model.json")).unwrap(), before);
    // Directories around it are made.
    save(&saved.directory.join("not/yet/there")).unwrap();
    assert!(saved.directory.join("not/yet/there/model.json").exists());
    assert_contains(
        &save(Path::new("..")).unwrap_err(),
        &["directory: expected the name of a new directory"],
    );

    let empty = saved.directory.with_file_name("empty");
    fs::create_dir(&empty).unwrap();
    save(&empty).unwrap();
    assert!(empty.join("model.json").exists());
    // Only the two directories: every draft is gone.
    assert_eq!(fs::read_dir(saved.directory.parent().unwrap()).unwrap().count(), 2);
}

#[test]
fn paths_without_weights_get_told_what_weights_look_like() {
    let place = tempfile::tempdir().unwrap();
    let error = |path: &Path| Weights::load(path).unwrap_err().to_string();
    let both = [
        "model.json and one .npy for each tensor",
        "PREFIX.index",
        "a file of PyTorch, safetensors or TensorFlow V1",
    ];
    assert_contains(&error(place.path()), &["a directory with neither a checkpoint nor model.json", both[0]]);
    assert_contains(&error(&place.path().join("x")), &["no such file, directory or checkpoint prefix"]);
    assert_contains(&error(&place.path().join("x")), &both);
}

#[test]
fn every_missing_extra_and_misshaped_file_is_listed() {
    let saved = Saved::new(TINY);
    let at = |file: &str| saved.directory.join(file);
    fs::remove_file(at("conv2d_3.V.npy")).unwrap();
    fs::remove_file(at("dense_0.g.npy")).unwrap();
    fs::copy(at("conv2d_1.g.npy"), at("conv2d_999.g.npy")).unwrap();
    fs::write(at("notes.txt"), "not an array, not a problem").unwrap();
    saved.edit_array("conv2d_0.b.npy", |b| ArrayD::zeros(vec![b.len() + 1]));
    // The same number of elements in another order of axes.
    saved.edit_array("deconv2d_0.V.npy", |v| v.permuted_axes(vec![1, 0, 2, 3]));
    saved.edit_manifest(|json| {
        json["sha256"].as_object_mut().unwrap().remove("conv2d_2.b.npy");
        json["sha256"]["../../etc/passwd"] = "00".into();
    });
    let error = saved.error();
    let head = "not the weights of a PixelCNN++ (1 resnets, 4 filters, 2 mixtures, 3 classes, concat_elu): ";
    assert_contains(&error, &[head, " is missing; ", "; and ", " more"]);
    assert!(error.len() + "error: ".len() <= fast_pixel_cnn::error::LINE, "{error}");
    let Err(Error::Mismatch { problems, .. }) = saved.load() else { panic!("{error}") };
    assert_eq!(
        problems,
        [
            "conv2d_0.b.npy: expected shape [4], found [5]",
            "conv2d_2.b.npy has no SHA-256 in model.json",
            "conv2d_3.V.npy [2, 3, 8, 4] is missing",
            "dense_0.g.npy [4] is missing",
            "deconv2d_0.V.npy: expected shape [2, 3, 4, 4], found [3, 2, 4, 4]",
            "conv2d_999.g.npy is extra",
            "../../etc/passwd is extra in model.json",
        ]
    );
}

#[test]
fn what_macos_keeps_beside_a_file_is_no_array() {
    let saved = Saved::new(TINY);
    fs::write(saved.directory.join("._conv2d_3.V.npy"), b"\0\x05\x16\x07\0\x02\0\0Mac OS X").unwrap();
    fs::write(saved.directory.join("._model.json"), b"\0\x05\x16\x07").unwrap();
    fs::write(saved.directory.join(".DS_Store"), b"\0\0\0\x01Bud1").unwrap();
    saved.open(2).unwrap();
    fs::write(saved.directory.join("_conv2d_3.V.npy"), b"").unwrap();
    assert_contains(&saved.error(), &["_conv2d_3.V.npy is extra"]);
}

#[test]
fn sparse_files_are_refused_before_they_are_read() {
    for file in ["conv2d_3.V.npy", "conv2d_3.g.npy", "model.json"] {
        let saved = Saved::new(TINY);
        let opened = fs::File::options().write(true).open(saved.directory.join(file)).unwrap();
        if let Err(error) = opened.set_len(1 << 42) {
            println!("no sparse file was tried: {error}");
            return;
        }
        let expected =
            if file == "model.json" { "length: expected at most 4194304 bytes" } else { "data: expected" };
        assert_contains(&saved.error(), &[file, expected, "439804"]);
    }
}

#[test]
fn an_array_under_the_wrong_name_fails_its_hash() {
    // Where the shapes agree nothing but the hash can tell.
    let saved = Saved::new(TINY);
    fs::copy(saved.directory.join("conv2d_0.b.npy"), saved.directory.join("conv2d_1.b.npy")).unwrap();
    assert_contains(
        &saved.error(),
        &["conv2d_1.b.npy: contents: expected SHA-256", "as in model.json, found"],
    );
}

#[test]
fn one_flipped_bit_is_found() {
    let saved = Saved::new(TINY);
    flip_last_bit(&saved, "dense_1.V.npy");
    assert_contains(&saved.error(), &["dense_1.V.npy: contents: expected SHA-256"]);
}

#[test]
fn unusable_numbers_are_named() {
    for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let saved = Saved::new(TINY);
        saved.edit_array("conditional_weights_2.hw.npy", |mut hw| {
            hw[[1, 5]] = value;
            hw
        });
        let found =
            format!("tensor conditional_weights_2/hw: expected finite numbers, found {value} at [1, 5]");
        assert_contains(&saved.error(), &["conditional_weights_2.hw.npy", &found]);
    }
    // A channel of zeros along the output axis of each kind: the last, but the third of a deconv.
    for (file, axis) in [("conv2d_4.V.npy", 3), ("deconv2d_1.V.npy", 2), ("dense_3.V.npy", 1)] {
        let saved = Saved::new(TINY);
        saved.edit_array(file, |mut v| {
            v.index_axis_mut(ndarray::Axis(axis), 2).fill(0.0);
            v
        });
        assert_contains(&saved.error(), &[file, "nothing but zeros for output channel 2"]);
    }
    // Zero gains, biases and class terms are fine.
    let saved = Saved::new(TINY);
    for file in ["conv2d_0.g.npy", "conv2d_0.b.npy", "conditional_weights_0.hw.npy"] {
        saved.edit_array(file, |v| ArrayD::zeros(v.raw_dim()));
    }
    saved.open(2).unwrap();
}

fn flip_last_bit(saved: &Saved, file: &str) {
    let path = saved.directory.join(file);
    let mut bytes = fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&path, bytes).unwrap();
}

#[test]
fn of_several_damaged_files_the_first_array_is_reported_whatever_the_threads() {
    let order: Vec<String> = TINY.graph().arrays(false).map(|(_, name, _)| name).collect();
    let saved = Saved::new(TINY);
    // From the last array to the first, whose file is the one to be reported from then on. Layers are
    // not packed in the order of the network's parameters.
    for name in order.iter().rev().step_by(7) {
        let file = format!("{}.npy", name.replace('/', "."));
        flip_last_bit(&saved, &file);
        for threads in [1, 2, 5] {
            let error = saved.open(threads).err().expect("the directory is broken").to_string();
            assert_contains(&error, &[&file, "contents: expected SHA-256"]);
        }
    }
}

#[test]
fn the_programs_refuse_damaged_numbers_in_one_line() {
    let place = tempfile::tempdir().unwrap();
    let images = place.path().join("images.npy");
    npy::write(&images, &ndarray::Array4::<u8>::zeros((1, 8, 8, 3)).view()).unwrap();
    let labels = place.path().join("labels.npy");
    npy::write(&labels, &ndarray::array![2i64].view()).unwrap();
    let refused = |saved: &Saved, parts: &[&str]| {
        let paths = [&saved.directory, &images, &labels, &place.path().join("out")];
        let [directory, images, labels, out] = paths.map(|p| p.to_str().unwrap());
        run::run("generate", &["-c", directory, "-n", "1", "-v", out]).fails_with(parts);
        run::run("evaluate", &["-c", directory, "--images", images, "--labels", labels]).fails_with(parts);
        assert!(!Path::new(out).exists());
    };
    let saved = Saved::new(TINY);
    let out = place.path().join("whole").display().to_string();
    let directory = saved.directory.to_str().unwrap();
    run::run("generate", &["-c", directory, "-n", "1", "-i", "8", "-v", &out]).succeeds();
    type Damage = fn(&Saved, &str);
    let damages: [(Damage, &str); 3] = [
        (flip_last_bit, "contents: expected SHA-256"),
        (|saved, file| saved.edit_array(file, |v| v * f32::NAN), "expected finite numbers, found NaN at [0"),
        (|saved, file| saved.edit_array(file, |v| v * 0.0), "expected a kernel of norm above 0"),
    ];
    for (damage, message) in damages {
        let saved = Saved::new(TINY);
        damage(&saved, "deconv2d_1.V.npy");
        refused(&saved, &["deconv2d_1.V.npy: ", message]);
    }
    let saved = Saved::new(TINY);
    let path = saved.directory.join("dense_2.g.npy");
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() - 2]).unwrap();
    refused(&saved, &["dense_2.g.npy: data: expected 16 bytes of data for shape [4], found 14 bytes"]);
}

#[test]
fn a_file_that_changes_after_the_directory_was_opened_is_found() {
    let saved = Saved::new(TINY);
    let weights = saved.load().unwrap();
    let refused = |message: &str| {
        let error = weights.array("conv2d_7/b").unwrap_err().to_string();
        assert_contains(&error, &["conv2d_7.b.npy: ", message]);
    };
    weights.array("conv2d_7/b").unwrap();
    flip_last_bit(&saved, "conv2d_7.b.npy");
    refused("contents: expected SHA-256");
    fs::copy(saved.directory.join("conv2d_0.V.npy"), saved.directory.join("conv2d_7.b.npy")).unwrap();
    refused("contents: expected SHA-256");
    fs::write(saved.directory.join("conv2d_7.b.npy"), "").unwrap();
    refused("header: expected an .npy file, found 0 bytes");
    fs::remove_file(saved.directory.join("conv2d_7.b.npy")).unwrap();
    refused("open");
}

#[test]
fn a_wrong_type_is_named() {
    let saved = Saved::new(TINY);
    npy::write(&saved.directory.join("conv2d_0.g.npy"), &ndarray::array![1i32, 2, 3, 4].view()).unwrap();
    assert_contains(
        &saved.error(),
        &["conv2d_0.g.npy: header: expected little-endian float32, found type '<i4'"],
    );
}

#[test]
fn hostile_descriptions_are_refused() {
    type Edit = fn(&mut serde_json::Value);
    let cases: [(Edit, &str); 12] = [
        (
            |j| j["config"]["nr_resnet"] = 1_000_000_000u64.into(),
            "nr_resnet is 1000000000; 1 to 100 are supported",
        ),
        (|j| j["config"]["nr_resnet"] = 0.into(), "nr_resnet is 0"),
        (|j| j["config"]["nr_filters"] = u64::MAX.into(), "nr_filters is 18446744073709551615"),
        (|j| j["config"]["nr_logistic_mix"] = 0.into(), "nr_logistic_mix is 0"),
        (|j| j["config"]["num_classes"] = u64::MAX.into(), "num_classes is 18446744073709551615"),
        (|j| j["config"]["nr_filters"] = (-1).into(), "invalid value: integer `-1`"),
        (|j| j["config"]["nr_filters"] = "many".into(), "invalid type: string \"many\""),
        (|j| j["config"]["nonlinearity"] = "gelu".into(), "unknown variant `gelu`"),
        (|j| j["config"] = serde_json::Value::Null, "invalid type: null"),
        (|j| j["schema"] = "fast-pixel-cnn/weights/2".into(), "expected \"fast-pixel-cnn/weights/1\", found"),
        (|j| j["schema"] = 1.into(), "invalid type: integer `1`"),
        (|j| j["sha256"] = serde_json::json!({"conv2d_0.V.npy": 5}), "invalid type: integer `5`"),
    ];
    for (edit, message) in cases {
        let saved = Saved::new(TINY);
        saved.edit_manifest(edit);
        let error = saved.error();
        assert_contains(&error, &["model.json", message]);
        assert!(error.len() < 500, "{error}");
    }
    // Another, possible, configuration: everything that does not fit it is listed.
    let saved = Saved::new(TINY);
    saved.edit_manifest(|j| j["config"]["nr_resnet"] = 2.into());
    assert_contains(
        &saved.error(),
        &["(2 resnets", "conv2d_7.V.npy: expected shape [2, 3, 8, 4], found", " more"],
    );
    let Err(Error::Mismatch { problems, .. }) = saved.load() else { panic!("{}", saved.error()) };
    assert!(problems.contains(&"conv2d_62.V.npy [2, 2, 8, 8] is missing".into()), "{problems:?}");
    // The largest that may be claimed with few files behind it is counted, not listed.
    saved.edit_manifest(|j| j["config"]["nr_resnet"] = 100.into());
    let error = saved.error();
    assert_contains(&error, &["tensors are missing"]);
    assert!(error.len() < 500, "{error}");

    let text = |text: &[u8]| {
        let saved = Saved::new(TINY);
        fs::write(saved.directory.join("model.json"), text).unwrap();
        let error = saved.error();
        assert_contains(&error, &["model.json: "]);
        assert!(error.len() < 500, "{error}");
    };
    text(b"");
    text(b"{}");
    text(b"\xff\xfe{");
    text("[".repeat(100_000).as_bytes());
    text(&vec![b' '; (4 << 20) + 1]);
}

#[test]
fn mutated_descriptions_never_panic() {
    let saved = Saved::new(TINY);
    let path = saved.directory.join("model.json");
    let good = fs::read(&path).unwrap();
    let mut state = 2702u64;
    let mut next = |n: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % n
    };
    // The part before the list of hashes says more; mutate it more often.
    for _ in 0..400 {
        let mut bad = good.clone();
        for _ in 0..1 + next(3) {
            let at = if next(4) > 0 { next(400) } else { next(bad.len()) };
            match next(3) {
                0 => bad[at] = b"0123456789\"{}[]:,-eE.truefalsn"[next(30)],
                1 => bad.insert(at, b"0123456789"[next(10)]),
                _ => drop(bad.remove(at)),
            }
        }
        fs::write(&path, &bad).unwrap();
        if let Err(e) = saved.open(1) {
            assert!(!e.to_string().is_empty());
        }
    }
}

#[test]
fn options_must_fit_the_directory() {
    let load = |saved: &Saved, options: Options| Weights::load_with(&saved.directory, &options);
    let with = |nonlinearity| Options { nonlinearity: Some(nonlinearity), ..Options::default() };
    let doubled = Saved::new(TINY);
    load(&doubled, with(Nonlinearity::ConcatElu)).unwrap();
    let error = load(&doubled, with(Nonlinearity::Elu)).unwrap_err().to_string();
    assert_eq!(error, "nonlinearity: expected concat_elu, since the model's channels double, found elu");
    let elu = PixelCnnPp { nonlinearity: Nonlinearity::Elu, ..TINY };
    let plain = Saved::new(elu);
    let relu = load(&plain, with(Nonlinearity::Relu)).unwrap();
    assert_eq!(relu.config(), Some(&PixelCnnPp { nonlinearity: Nonlinearity::Relu, ..elu }.into()));
    load(&plain, with(Nonlinearity::ConcatElu)).unwrap_err();
    // Synthetic weights are no averages; claim that they are.
    load(&plain, Options { raw: true, ..Options::default() }).unwrap();
    let error = load(&plain, Options { scope: Some("model".into()), ..Options::default() });
    let error = error.unwrap_err().to_string();
    assert_contains(&error, &["scope: ", " has one model: it was converted"]);
    plain.edit_manifest(|json| json["source"]["averaged"] = true.into());
    let error = load(&plain, Options { raw: true, ..Options::default() }).unwrap_err().to_string();
    assert_contains(&error, &["raw: ", " has averaged weights alone: the checkpoint has the raw ones"]);
}

#[test]
fn synthetic_weights_are_quick_repeatable_and_of_norm_g() {
    let start = std::time::Instant::now();
    let weights = Weights::synthetic(PixelCnnPp::PAPER, 1);
    // 54 million numbers; a second on one core, with room for a busy machine.
    assert!(start.elapsed().as_secs_f64() < 10.0, "{:?}", start.elapsed());
    let wide = Weights::synthetic(TINY_WIDE, 1);
    assert_eq!(weights.array("conv2d_0/V").unwrap(), wide.array("conv2d_0/V").unwrap());
    let graph = PixelCnnPp::PAPER.graph();
    for parameter in graph.parameters.iter().filter(|p| p.kind != ParameterKind::PerClass).step_by(20) {
        let folded = weights.fold(parameter).unwrap();
        let g = weights.array(&format!("{}/g", parameter.name)).unwrap();
        for (o, g) in g.iter().enumerate() {
            let column = folded.kernel.iter().skip(o).step_by(parameter.outputs);
            let norm = column.map(|w| f64::from(*w).powi(2)).sum::<f64>().sqrt();
            assert!((norm - f64::from(g.abs())).abs() < 1e-5, "{} {o}: {norm} {g}", parameter.name);
        }
    }
}

/// The paper's model with fewer layers: the first ones are the same.
const TINY_WIDE: PixelCnnPp = PixelCnnPp { resnets: 1, ..PixelCnnPp::PAPER };
