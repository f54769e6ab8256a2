//! The CUDA engine against the CPU engine and PyTorch, and what is refused on a device. What every engine holds is in
//! `cuda_conformance.rs`.
//!
//! Runs on whatever `libcuda.so.1` is found: `tools/test-cuda.sh` says which.

#[path = "common/engines.rs"]
mod common;
#[path = "common/poison.rs"]
mod poison;

use common::golden::*;
use common::stacks;
use fast_pixel_cnn::cpu::{self, CpuEngine};
use fast_pixel_cnn::cuda::{CudaEngine, Options, Strategy};
use fast_pixel_cnn::engine::{Batch, Engine, Method, Noise};
use fast_pixel_cnn::generate;
use fast_pixel_cnn::graph::{Activation, IMAGE};
use fast_pixel_cnn::heads::Head;
use fast_pixel_cnn::{PixelCnnPp, WaveNet, Weights, media::npy};

fn cuda(weights: &Weights, strategy: Strategy) -> CudaEngine {
    CudaEngine::new(weights, 0, &Options { strategy, ..Options::default() }).unwrap()
}

fn cpu(weights: &Weights) -> CpuEngine {
    CpuEngine::new(weights, &cpu::Options::default()).unwrap()
}

#[test]
fn logits_and_likelihoods_are_near_the_cpu_s() {
    for directory in DIRECTORIES {
        let weights = load(&format!("{directory}/v2/params.ckpt"), false, relu(directory));
        let (images, labels) = (images(directory), labels(directory));
        let reference = cpu(&weights).logits(images.view(), labels.as_deref()).unwrap();
        let mut engine = cuda(&weights, Strategy::Auto);
        let logits = engine.logits(images.view(), labels.as_deref()).unwrap();
        let off = largest(&logits, &reference);
        // The device's likelihoods are those of its own logits.
        let nats = engine.nats(images.view(), labels.as_deref()).unwrap();
        let own = engine.graph().head.nats(logits.view(), images.view()).unwrap();
        let apart = nats.iter().zip(&own).map(|(a, b)| (a / b - 1.0).abs()).fold(0.0, f64::max);
        println!("{directory}: logits within {off:e}, nats within {apart:e} relative");
        assert!(off <= 1e-4 && apart <= 1e-12, "{directory}");
    }
}

/// RGB and gray, from files of different forms: what the files hold is compared on the CPU (`convert_torch.rs`).
#[test]
fn pytorch_s_models_give_pytorch_s_logits_and_images() {
    for file in ["torch_rgb/zip.pth", "torch_gray/model.safetensors"] {
        let (model, _) = file.split_once('/').unwrap();
        let weights = load(file, false, None);
        let mut engine = cuda(&weights, Strategy::Auto);
        let (images, expected) = (images(model), array(&format!("{model}/logits.npy")));
        let off = largest(&engine.logits(images.view(), None).unwrap(), &expected);
        let nll = npy::read_f32(&golden(&format!("{model}/nll.npy"))).unwrap();
        let nats = engine.nats(images.view(), None).unwrap();
        assert_eq!(nats.len(), nll.len());
        let apart = nats.iter().zip(&nll).map(|(a, b)| (a / f64::from(*b) - 1.0).abs()).fold(0.0, f64::max);
        println!("{file}: logits within {off:e}, nats within {apart:e} relative");
        assert!(off <= 1e-4 && apart <= 1e-5, "{file}");
    }
    let weights = load("torch_rgb/zip.pth", false, None);
    let noise = generate::read_noise(&golden("torch_rgb/gen"), &weights.graph().head).unwrap();
    let expected = array("torch_rgb/gen/x_gen.npy");
    let (size, height, width, _) = noise.dim();
    let batch = Batch { noise: Noise::Given(noise.view()), ..Batch::new(size, height, width) };
    // By the strategy that takes the virtual GPU least: all have the same bits (`cuda_conformance.rs`).
    let output = cuda(&weights, Strategy::Launch).make(&batch, &|_| true).unwrap();
    let off = largest(&output.images, &expected);
    println!("torch_rgb, generated: images within {off:e}");
    assert!(off <= 1e-4);
}

/// More taps than a block's shared memory has room for.
#[test]
fn a_layer_of_too_many_taps_is_refused() {
    let graph = stacks::reading(Head::Categorical { symbols: 40 }, Activation::Identity, 300, false);
    assert_eq!(graph.maps[IMAGE].channels, 1);
    let error = CudaEngine::new(&Weights::synthetic_for(graph, 1), 0, &Options::default()).err().unwrap();
    assert!(error.to_string().contains("taps and 196 fit"), "{error}");
}

/// And as many as there is room for, whatever the strategy.
#[test]
fn a_layer_of_as_many_taps_as_fit_runs_by_every_strategy() {
    // Five more are of the pixel before, of what is known and of the layer before.
    let graph = stacks::reading(Head::Categorical { symbols: 40 }, Activation::Identity, 191, false);
    let known = stacks::known(&graph, 1, 2, 4).unwrap();
    let weights = Weights::synthetic_for(graph, 1);
    let generate = |strategy: Strategy, method: Method| {
        let known = Some(known.view());
        let batch = Batch { keep_logits: true, known, method, ..Batch::new(1, 2, 4) };
        cuda(&weights, strategy).make(&batch, &|_| true).unwrap()
    };
    let launch = generate(Strategy::Launch, Method::Cached);
    for other in [generate(Strategy::Persistent, Method::Cached), generate(Strategy::Launch, Method::Naive)] {
        assert!(bits(&launch.images) == bits(&other.images));
        assert!(bits(launch.logits.as_ref().unwrap()) == bits(&other.logits.unwrap()));
    }
}

/// When the engine is opened: whatever the batch, it could not be made.
#[test]
fn a_network_that_fits_no_block_is_refused() {
    let few = WaveNet { dilations: vec![1, 2], ..WaveNet::default() };
    let outputs = WaveNet { skip_channels: 1040, ..few.clone() };
    let networks = [
        (few.graph(), Strategy::Team, None),
        (stacks::much_at_a_pixel(), Strategy::Team, Some("too large for a block")),
        (few.graph(), Strategy::Cluster, None),
        (outputs.graph(), Strategy::Cluster, Some("too large for clusters of 16 blocks")),
    ];
    for (graph, strategy, refusal) in networks {
        let options = Options { strategy, ..Options::default() };
        match CudaEngine::new(&Weights::synthetic_for(graph, 1), 0, &options) {
            Ok(_) => assert_eq!(refusal, None, "{strategy:?}"),
            Err(error) => {
                let (error, name) = (error.to_string(), strategy.name());
                let by_device = strategy == Strategy::Cluster && error.contains("has no clusters");
                assert!(by_device || refusal.is_some_and(|words| error.contains(words)), "{error}");
                assert!(error.contains(&format!("cannot run the strategy {name}")), "{error}");
            }
        }
    }
}

/// Nor is it predicted to be made so.
#[test]
fn what_fits_no_cluster_is_not_predicted() {
    for (skip_channels, fits) in [(512, true), (1040, false)] {
        let network = WaveNet { dilations: vec![1, 2], skip_channels, ..WaveNet::default() };
        let engine = cuda(&Weights::synthetic(network, 1), Strategy::Launch);
        let predicted = engine.predict(1, [16, 1], 1e9).unwrap();
        let by_clusters = predicted.iter().any(|p| p.strategy == Strategy::Cluster);
        assert_eq!(by_clusters, fits && engine.properties().clusters, "{skip_channels} skip channels");
        let by_teams = predicted.iter().any(|p| p.strategy == Strategy::Team);
        assert_eq!(by_teams, engine.properties().cooperative);
    }
}

/// Where a tile has all its channels, chunks more than lanes, and gates in every position: the shapes that the
/// small models do not have. All layers that the paper's model has, one of a kind. By clusters on devices that have them.
#[test]
fn the_paper_s_layers_are_the_same_by_every_strategy_and_near_the_cpu_s() {
    let weights = Weights::synthetic(PixelCnnPp { resnets: 1, ..PixelCnnPp::PAPER }, 1);
    let generate = |strategy: Strategy| {
        let batch = Batch { keep_logits: true, ..Batch::new(2, 4, 4) };
        match CudaEngine::new(&weights, 0, &Options { strategy, ..Options::default() }) {
            Ok(mut engine) => Some(engine.make(&batch, &|_| true).unwrap()),
            Err(error) => {
                assert!(strategy == Strategy::Cluster && error.to_string().contains("has no clusters"));
                None
            }
        }
    };
    let launch = generate(Strategy::Launch).unwrap();
    let others = [Strategy::Persistent, Strategy::Cluster, Strategy::Team];
    for other in others.into_iter().filter_map(generate) {
        assert!(bits(&launch.images) == bits(&other.images));
        assert!(bits(launch.logits.as_ref().unwrap()) == bits(&other.logits.unwrap()));
    }
    let on_cpu = cpu(&weights).logits(launch.images.view(), None).unwrap();
    let off = largest(&launch.logits.unwrap(), &on_cpu);
    println!("the paper's layers: logits within {off:e} of the CPU's");
    assert!(off <= 1e-4);
}

/// At another temperature than 1 too.
#[test]
fn images_are_near_the_cpu_s() {
    let weights = Weights::synthetic(SMALL, 7);
    for temperature in [0.3, 1.0, 2.0] {
        let noise = Noise::Philox { seed: 2702, first_index: 10 };
        let batch = Batch { labels: Some(&[3, 0]), noise, temperature, ..Batch::new(2, 4, 4) };
        let output = cuda(&weights, Strategy::Auto).make(&batch, &|_| true).unwrap();
        let expected = cpu(&weights).make(&batch, &|_| true).unwrap();
        let off = largest(&output.images, &expected.images);
        println!("temperature {temperature}: images within {off:e} of the CPU's");
        assert!(off <= 1e-4);
    }
}

#[test]
fn logits_that_are_not_finite_have_no_likelihood() {
    let dir = tempfile::tempdir().unwrap();
    for (directory, variable) in
        [("tiny", "conv2d_0/g"), ("elu", "conv2d_0/g"), ("relu", "conv2d_0/g"), ("relu", "conv2d_5/g")]
    {
        let sound = load(&format!("{directory}/v2/params.ckpt"), false, relu(directory));
        let place = dir.path().join(format!("{directory}.{}", variable.replace('/', ".")));
        let place = poison::poison(&sound, &place, variable, None);
        let weights = Weights::load(&place).unwrap();
        let images = images(directory);
        let mut engine = cuda(&weights, Strategy::Auto);
        let nats = engine.nats(images.view(), None).unwrap();
        let logits = engine.logits(images.view(), None).unwrap();
        let by_logits = engine.graph().head.nats(logits.view(), images.view()).unwrap();
        let on_cpu = cpu(&weights).nats(images.view(), None).unwrap();
        for (name, nats) in [("device", nats), ("logits", by_logits), ("CPU", on_cpu)] {
            assert!(nats.iter().all(|n| n.is_nan()), "{directory}, {variable}, by {name}: {nats:?}");
        }
        let error =
            |engine: &mut CudaEngine| engine.make(&Batch::new(2, 4, 4), &|_| true).unwrap_err().to_string();
        let found = error(&mut engine);
        assert!(found.contains("are not finite"));
        // Clusters draw from logits that need not have come to the map.
        match CudaEngine::new(&weights, 0, &Options { strategy: Strategy::Cluster, ..Options::default() }) {
            Ok(mut clusters) => assert_eq!(error(&mut clusters), found),
            Err(none) => {
                assert!(none.to_string().contains("has no clusters"), "{none}");
                println!("not by clusters: {none}");
            }
        }
    }
}

#[test]
fn a_batch_that_memory_does_not_hold_is_refused() {
    let mut engine = cuda(&Weights::synthetic(PixelCnnPp { classes: 0, ..SMALL }, 1), Strategy::Auto);
    let error = engine.make(&Batch::new(100_000, 256, 256), &|_| true).unwrap_err().to_string();
    assert!(error.contains("would fit"), "{error}");
}

#[test]
fn an_engine_passes_from_thread_to_thread() {
    let weights = Weights::synthetic(SMALL, 7);
    let make = |engine: &mut dyn Engine, indices: &[u32]| {
        let noise = Noise::PhiloxAt { seed: 3, indices };
        let batch = Batch { labels: Some(&[3, 0]), noise, ..Batch::new(2, 4, 4) };
        engine.make(&batch, &|_| true).unwrap().images
    };
    let mut engine = cuda(&weights, Strategy::Auto);
    let here = make(&mut engine, &[5, 9]);
    let elsewhere = std::thread::spawn(move || (make(&mut engine, &[5, 9]), engine)).join();
    let (there, engine) = elsewhere.unwrap();
    assert!(bits(&here) == bits(&there));
    // What it holds is freed where it ends; another one's context is current there meanwhile.
    std::thread::spawn(move || {
        let mut other = cuda(&Weights::synthetic(SMALL, 7), Strategy::Auto);
        drop(engine);
        assert!(bits(&make(&mut other, &[5, 9])) == bits(&here));
    })
    .join()
    .unwrap();
}
