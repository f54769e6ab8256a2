//! What bfloat16 weights cost in accuracy, and that they cost no exactness; and batches larger than what
//! is made at a time.

#[allow(dead_code, reason = "not all of it is used here")]
#[path = "common/golden.rs"]
mod golden;

use std::path::{Path, PathBuf};

use fast_pixel_cnn::cpu::{CpuEngine, Isa, Options, Split};
use fast_pixel_cnn::engine::{Batch, Engine, Method, Noise, Output};
use fast_pixel_cnn::{Nonlinearity, Precision, Weights, media::npy, weights};
use golden::SMALL;
use ndarray::{Array4, Ix4, s};

fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The directory with images and labels, the weights, and the largest differences allowed: of logits and
/// of bits per dimension. Each is about twice what was measured.
const SETS: [(&str, &str, f32, f64); 6] = [
    ("tests/golden/tiny", "tests/golden/tiny/v2/params.ckpt", 0.04, 8e-3),
    ("tests/golden/cond", "tests/golden/cond/v2/params.ckpt", 0.04, 8e-3),
    ("tests/golden/elu", "tests/golden/elu/v2/params.ckpt", 0.04, 8e-3),
    ("tests/golden/relu", "tests/golden/relu/v2/params.ckpt", 0.04, 8e-3),
    ("tests/golden/rect", "tests/golden/rect/v2/params.ckpt", 0.04, 8e-3),
    ("tests/golden/digits", "models/digits", 0.2, 2e-2),
];

#[test]
fn the_price_of_bfloat16_weights_is_bounded() {
    println!("| set | largest difference of logits | of bits/dim of an image | of their mean |");
    for (directory, checkpoint, most_logit, most_bits) in SETS {
        let nonlinearity = directory.ends_with("relu").then_some(Nonlinearity::Relu);
        let options = weights::Options { nonlinearity, ..Default::default() };
        let bytes = npy::read_u8(&root(directory).join("images_u8.npy")).unwrap();
        let images = bytes.into_dimensionality::<Ix4>().unwrap().mapv(|p| (f32::from(p) - 127.5) / 127.5);
        let labels = root(directory).join("labels.npy");
        let labels = labels.exists().then(|| npy::read_labels(&labels).unwrap());
        let (_, height, width, _) = images.dim();
        let [exact, half] = [Precision::F32, Precision::Bf16].map(|precision| {
            let weights = Weights::load_with(root(checkpoint), &options).unwrap();
            let mut engine = CpuEngine::new(&weights, &Options { precision, ..Options::default() }).unwrap();
            let logits = engine.logits(images.view(), labels.as_deref()).unwrap();
            let nats = engine.graph().head.nats(logits.view(), images.view()).unwrap();
            let bits: Vec<f64> =
                nats.iter().map(|n| engine.graph().head.bits_per_dim(*n, height, width)).collect();
            (logits, bits)
        });
        let logit = exact.0.iter().zip(&half.0).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        let bits = exact.1.iter().zip(&half.1).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        let mean = |bits: &[f64]| bits.iter().sum::<f64>() / bits.len() as f64;
        let of_mean = mean(&half.1) - mean(&exact.1);
        println!("| {directory} | {logit:.1e} | {bits:.1e} | {of_mean:+.1e} |");
        assert!(logit > 0.0 && logit < most_logit && bits < most_bits, "{directory}: {logit:e}, {bits:e}");
    }
}

fn generate(engine: &mut CpuEngine, first_index: u64, labels: &[u32], method: Method) -> Output {
    let batch = Batch {
        labels: Some(labels),
        noise: Noise::Philox { seed: 2702, first_index },
        method,
        ..Batch::new(labels.len(), 8, 12)
    };
    engine.make(&batch, &|_| true).unwrap()
}

fn bits(images: &Array4<f32>) -> Vec<u32> {
    images.iter().map(|x| x.to_bits()).collect()
}

fn engine(threads: usize, isa: Isa, split: Option<Split>, precision: Precision) -> CpuEngine {
    let options = Options { threads: Some(threads), isa: Some(isa), split, precision };
    CpuEngine::new(&Weights::synthetic(SMALL, 5), &options).unwrap()
}

#[test]
fn with_bfloat16_weights_an_image_is_one_array_of_bits_too() {
    let labels = [3, 0, 1];
    let mut expected = None;
    for isa in Isa::ALL {
        if !isa.available() {
            println!("not run: {}, which this processor lacks", isa.name());
            continue;
        }
        for (threads, split) in [(1, None), (2, Some(Split::Outputs)), (3, Some(Split::Images))] {
            let mut engine = engine(threads, isa, split, Precision::Bf16);
            for method in [Method::Cached, Method::Naive] {
                if isa == Isa::Portable && method == Method::Naive {
                    println!("not run: portable, naive, {threads} threads, which takes minutes");
                    continue;
                }
                let images = bits(&generate(&mut engine, 7, &labels, method).images);
                let expected = expected.get_or_insert_with(|| images.clone());
                assert!(images == *expected, "{isa:?}, {threads} threads, {method:?}");
            }
            let alone = generate(&mut engine, 8, &labels[1..2], Method::Cached).images;
            let one = expected.as_ref().unwrap();
            assert!(
                bits(&alone) == one[one.len() / 3..][..one.len() / 3],
                "{isa:?}, {threads} threads, alone"
            );
        }
    }
    let isa = Isa::ALL.into_iter().find(|i| i.available()).unwrap();
    let plain = generate(&mut engine(1, isa, None, Precision::F32), 7, &labels, Method::Cached).images;
    assert!(Some(bits(&plain)) != expected, "the precision makes no difference");
}

#[test]
fn a_batch_larger_than_what_is_made_at_a_time_is_the_same_images() {
    let isa = Isa::ALL.into_iter().find(|i| i.available()).unwrap();
    let labels: Vec<u32> = (0..75).map(|i| i % 4).collect();
    for (threads, split) in [(1, Split::Images), (2, Split::Images), (2, Split::Outputs)] {
        let mut engine = engine(threads, isa, Some(split), Precision::F32);
        let way = engine.ways(labels.len(), 8, 12).0[0];
        assert!(way.block < labels.len(), "the batch is one block");
        let all = generate(&mut engine, 0, &labels, Method::Cached).images;
        for image in [0, 31, 32, 38, 64, 74] {
            let alone = generate(&mut engine, image as u64, &labels[image..image + 1], Method::Cached).images;
            let of_all = all.slice(s![image..image + 1, .., .., ..]).to_owned();
            assert!(bits(&alone) == bits(&of_all), "image {image}, {threads} threads, {split:?}");
        }
    }
}

#[test]
fn rows_are_told_in_order_and_a_batch_of_several_blocks_stops_when_asked() {
    use std::sync::Mutex;
    let isa = Isa::ALL.into_iter().find(|i| i.available()).unwrap();
    let mut engine = engine(2, isa, Some(Split::Images), Precision::F32);
    let labels = vec![1; 70];
    let batch = Batch {
        labels: Some(&labels),
        noise: Noise::Philox { seed: 1, first_index: 0 },
        ..Batch::new(70, 8, 12)
    };
    let told = Mutex::new(Vec::new());
    let note = |rows| {
        told.lock().unwrap().push(rows);
        true
    };
    engine.make(&batch, &note).unwrap();
    let told = told.into_inner().unwrap();
    assert!(told.is_sorted() && told.last() == Some(&8) && told.len() == 16, "{told:?}");

    let calls = Mutex::new(0);
    let stop = |_| {
        let mut calls = calls.lock().unwrap();
        *calls += 1;
        *calls < 3
    };
    let error = engine.make(&batch, &stop).unwrap_err();
    assert!(matches!(error, fast_pixel_cnn::Error::Interrupted), "{error}");
    assert_eq!(*calls.lock().unwrap(), 3);
}
