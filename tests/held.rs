//! Weights from arrays that are in memory, under the names of a trainer's checkpoint.

use std::path::Path;

use fast_pixel_cnn::checkpoint::{Checkpoint, Format, Held, Variable};
use fast_pixel_cnn::weights::{Options, Weights};

/// Every array of floats in a golden checkpoint, as a trainer would hold it.
fn held(path: &Path) -> Vec<Held> {
    let mut checkpoint = Checkpoint::open(path).unwrap();
    let floats = checkpoint.variables().to_vec().into_iter().filter(|v| v.dtype.float_size().is_some());
    let hold = |Variable { name, shape, .. }: Variable| {
        let values = checkpoint.read_f32(&name).unwrap();
        Held { name, shape, values }
    };
    floats.map(hold).collect()
}

#[test]
fn arrays_in_memory_are_what_a_checkpoint_of_them_would_be() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    for (path, params) in [
        ("cond/v2/params.ckpt", None),
        ("torch_gray/zip.pth", None),
        ("wavenet_gc/model.ckpt-72000", Some("wavenet_gc/wavenet_params.json")),
    ] {
        let options = Options { params: params.map(|file| golden.join(file)), ..Options::default() };
        let stored = Weights::load(golden.join(path)).unwrap();
        let weights = Weights::from_held(held(&golden.join(path)), &options).unwrap();
        assert_eq!((weights.config(), weights.source().format), (stored.config(), Some(Format::Held)));
        for (_, name, _) in stored.graph().arrays(stored.source().folded) {
            assert!(weights.array(&name).unwrap() == stored.array(&name).unwrap(), "{path}: {name}");
        }
    }
    // What a file beside it would tell is not looked for where the program happens to run.
    let sounds = Weights::from_held(held(&golden.join("wavenet_gc/model.ckpt-72000")), &Options::default());
    assert!(
        sounds.unwrap().warnings()[0].starts_with("there is no wavenet_params.json beside the arrays given")
    );
}

#[test]
fn arrays_in_memory_that_are_no_model_are_refused() {
    let array = |name: &str, shape: &[usize], values: usize| Held {
        name: name.into(),
        shape: shape.into(),
        values: vec![1.0; values],
    };
    let most = usize::MAX;
    for (arrays, said) in [
        (vec![], "0 tensors of other names"),
        (vec![array("fc.weight", &[2, 2], 4)], "1 tensors of other names: fc.weight"),
        (vec![array("a", &[1], 1), array("b", &[1], 1), array("a", &[1], 1)], "found two named a"),
        (vec![array("a", &[2, 2], 3)], "expected a with the values of [2, 2], found 3 of them"),
        (vec![array("a", &[most, most], 1)], "found 1 of them"),
        (vec![array("nin_out.lin_a.weight", &[20, 4], 80)], "u_init.conv is missing"),
        (vec![array("model/conv2d_0/V", &[2, 3, 4, 8], 192)], "dense_13 is missing"),
    ] {
        let message = Weights::from_held(arrays, &Options::default()).unwrap_err().to_string();
        assert!(message.starts_with("arrays: ") || message.starts_with("the arrays given: "), "{message}");
        assert!(message.contains(said), "{message}");
    }
}
