//! Graphs made by hand on the device: cached by every strategy against naive bit for bit, and against a plain
//! evaluation in float64 and the CPU engine.
//!
//! Runs on whatever `libcuda.so.1` is found: `tools/test-cuda.sh` says which.

#[path = "common/stacks.rs"]
mod stacks;

use fast_pixel_cnn::Weights;
use fast_pixel_cnn::cpu::{self, CpuEngine};
use fast_pixel_cnn::cuda::{CudaEngine, Strategy};
use fast_pixel_cnn::engine::{Batch, Engine, Given, Made, Method, Noise};
use fast_pixel_cnn::graph::{Activation, Graph, IMAGE};
use fast_pixel_cnn::heads::Head;
use ndarray::{Array4, s};
use stacks::{forward, known, reading, single, stacks};

const STRATEGIES: [Strategy; 3] = [Strategy::Launch, Strategy::Graph, Strategy::Persistent];

fn largest(a: impl Iterator<Item = f64>, b: impl Iterator<Item = f64>) -> f64 {
    a.zip(b)
        .fold(0.0, |most, (a, b)| if (a - b).abs() > most || (a - b).is_nan() { (a - b).abs() } else { most })
}

/// Runs a graph by every strategy and method, and compares; with the CPU engine where that is told to.
fn check(name: &str, graph: Graph, classes: usize, with_cpu: bool) {
    let period = graph.period();
    let weights = Weights::synthetic_for(graph, 5);
    let (size, height, width) = (3, 8_usize.next_multiple_of(period), 4_usize.next_multiple_of(period));
    let labels: Vec<u32> = (0..size as u32).map(|i| i % classes.max(1) as u32).collect();
    let conditioning = known(weights.graph(), size, height, width);
    let batch = |method: Method, given| Batch {
        labels: (classes > 0).then_some(&labels[..]),
        noise: Noise::Philox { seed: 8, first_index: 0 },
        known: conditioning.as_ref().map(|known| known.view()),
        given,
        method,
        keep_logits: true,
        ..Batch::new(size, height, width)
    };
    let make = |strategy: Strategy, batch: &Batch| -> Made {
        CudaEngine::new(&weights, 0, strategy).unwrap().make(batch, &|_| true).unwrap()
    };
    let naive = make(Strategy::Auto, &batch(Method::Naive, None));
    for strategy in STRATEGIES {
        let cached = make(strategy, &batch(Method::Cached, None));
        assert!(cached == naive, "{name}, {strategy:?}, {classes} classes: cached is not naive");
    }
    // Rows that are given, of an image that was drawn otherwise, and all of them.
    let other = naive.images.mapv(|x| -x);
    for rows in [height / 2, height] {
        let given = Given { images: other.view(), rows };
        let naive = make(Strategy::Auto, &batch(Method::Naive, Some(given)));
        let cached = make(Strategy::Persistent, &batch(Method::Cached, Some(given)));
        assert!(cached == naive, "{name}, {classes} classes, {rows} rows given: cached is not naive");
    }

    let logits = naive.logits.expect("asked for");
    let given = Given { images: naive.images.view(), rows: height };
    let numbers = |array: &Array4<f32>| array.iter().map(|x| f64::from(*x)).collect::<Vec<_>>();
    let off_cpu = with_cpu.then(|| {
        let mut engine = CpuEngine::new(&weights, &cpu::Options::default()).unwrap();
        let on_cpu = engine.make(&batch(Method::Naive, Some(given)), &|_| true).unwrap().logits.unwrap();
        largest(numbers(&logits).into_iter(), numbers(&on_cpu).into_iter())
    });
    let mut off = 0.0_f64;
    for (image, label) in labels.iter().enumerate() {
        let view = |array: &Array4<f32>| array.slice(s![image, .., .., ..]).to_owned();
        let empty = Array4::zeros((size, height, width, 0));
        let conditioning = view(conditioning.as_ref().unwrap_or(&empty));
        let image_of = view(&naive.images);
        let exact = forward(&weights, image_of.view(), conditioning.view(), *label as usize);
        let found = logits.slice(s![image..image + 1, .., .., ..]);
        off = off.max(largest(exact.iter().copied(), found.iter().map(|x| f64::from(*x))));
    }
    println!("{name}, {classes} classes: within {off:e}, of the CPU's {off_cpu:?}");
    assert!(off < 2e-5 && off_cpu.is_none_or(|off| off < 1e-4), "{name}, {classes} classes");
}

#[test]
fn every_stack_is_what_its_layers_say_and_cached_equals_naive() {
    for classes in [0, 3] {
        for (name, graph) in stacks(classes) {
            check(name, graph, classes, true);
        }
    }
}

/// Rows that begin with nothing, and pixels for which nothing is left.
#[test]
fn a_phase_can_be_empty() {
    check("to the left", single(&[[0, -1], [0, -2]]), 0, true);
    check("above", single(&[[-1, 0], [-2, 1]]), 0, true);
}

/// The activations of what comes from outside, in layers that read what others make through them too; an image of
/// one channel, with a constant 1 and without; taps so many that threads copy several parts of a record, and more
/// than there is room for.
#[test]
fn other_inputs_and_many_taps() {
    let gray = Head::MixtureOfLogistics { mixtures: 3, channels: 1 };
    for read in [Activation::Elu, Activation::Relu, Activation::ConcatElu] {
        check(&format!("inputs through {read:?}"), reading(gray, read, 2, true), 0, false);
    }
    let symbols = Head::Categorical { symbols: 40 };
    check("sixty taps", reading(symbols, Activation::Identity, 60, false), 0, false);
    let graph = reading(symbols, Activation::Identity, 200, false);
    assert_eq!(graph.maps[IMAGE].channels, 1);
    let error = CudaEngine::new(&Weights::synthetic_for(graph, 1), 0, Strategy::Auto).err().unwrap();
    assert!(error.to_string().contains("taps and 124 fit"), "{error}");
}
