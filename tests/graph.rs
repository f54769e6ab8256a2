//! Graphs that are refused, each in a line that says which layer and what is wrong; and weights of one's own for a
//! graph of one's own.

use std::collections::HashMap;

use fast_pixel_cnn::evaluate::{Task, evaluate};
use fast_pixel_cnn::graph::{
    Activation, Bias, Epilogue, Graph, IMAGE, Input, Layer, Map, Parameter, ParameterKind, Tap,
};
use fast_pixel_cnn::heads::Head;
use fast_pixel_cnn::{Device, Engine, Result, Run, Weights};
use ndarray::Array4;

/// A graph of two layers that is sound.
#[derive(Clone)]
struct Parts {
    parameters: Vec<Parameter>,
    maps: Vec<Map>,
    layers: Vec<Layer>,
    head: Head,
}

fn sound() -> Parts {
    let map = |name: &str, channels| Map { name: name.into(), stride: 1, channels };
    let parameter = |name: &str, positions, inputs, outputs| {
        let kind = ParameterKind::Conv { kernel: [1, positions] };
        Parameter { name: name.into(), kind, inputs, outputs, bias: true }
    };
    let layer = |name: &str, taps: Vec<Tap>, parameter, read, output| Layer {
        name: name.into(),
        taps,
        biases: vec![Bias::Every(parameter)],
        read,
        epilogue: Epilogue::default(),
        output,
    };
    let first = vec![Tap::new(IMAGE, [-1, 1], 0, 0, 2), Tap::new(IMAGE, [0, -1], 0, 1, 2)];
    let second = vec![Tap::new(1, [0, 0], 1, 0, 4)];
    Parts {
        parameters: vec![parameter("first", 2, 2, 4), parameter("second", 1, 4, 5)],
        maps: vec![map("image", 2), map("hidden", 4), map("logits", 5)],
        layers: vec![
            layer("a", first, 0, Activation::Identity, 1),
            layer("b", second, 1, Activation::Elu, 2),
        ],
        head: Head::Categorical { symbols: 5 },
    }
}

fn build(parts: Parts) -> Result<Graph> {
    Graph::new(parts.parameters, parts.maps, parts.layers, parts.head, 0, Input::default())
}

#[test]
fn a_wrong_graph_is_refused_with_what_is_wrong() {
    build(sound()).expect("a sound graph");
    let wrong = |change: &dyn Fn(&mut Parts), expected: &str| {
        let mut parts = sound();
        change(&mut parts);
        let error = build(parts).expect_err(expected).to_string();
        assert_eq!(error, format!("the graph's {expected}"));
    };
    let here = "the tap at row +0, column -1 of map image";
    wrong(
        &|p| p.layers[0].taps[1].column = 0,
        "layer a: the tap at row +0, column +0 of map image looks at pixels that come later: in its own row it may \
         look as far as column -1",
    );
    wrong(
        &|p| p.layers[1].taps[0].column = 1,
        "layer b: the tap at row +0, column +1 of map hidden looks at pixels that come later: in its own row it may \
         look as far as column +0",
    );
    wrong(
        &|p| p.layers[0].taps[1].position = 2,
        &format!("layer a: {here} has position 2, but the kernel of first has 2"),
    );
    wrong(
        &|p| p.layers[0].taps[1].inputs = vec![0..1, 0..1],
        &format!(
            "layer a: {here} reads 2 channels with inputs [0..1, 0..1] of first, which has 2: one input for each \
             channel, none twice"
        ),
    );
    wrong(
        &|p| p.layers[0].epilogue.gated = true,
        "layer a: parameter first has 4 outputs, the sum has 8 channels, values and gates",
    );
    wrong(&|p| p.layers.swap(0, 1), "layer b: it reads map 1 (hidden), which no earlier layer makes");
    wrong(&|p| p.layers[1].output = 1, "layer b: it makes map 1 (hidden), which is none or made already");
    wrong(&|p| p.layers[0].taps.clear(), "layer a: it has no taps");
    wrong(&|p| p.parameters[1].name = "first".into(), "parameter first: another parameter has the same name");
    wrong(
        &|p| p.maps[1].stride = 1 << 40,
        "map hidden: 4 channels, stride 1099511627776; strides are 1 to 1024",
    );
    wrong(
        &|p| p.head = Head::Categorical { symbols: 6 },
        "layer b: the last layer makes 5 channels of stride 1, the head takes 6 of stride 1",
    );
    for row in [isize::MIN, -(1 << 30)] {
        let mut parts = sound();
        parts.layers[0].taps[0].row = row;
        assert!(build(parts).unwrap_err().to_string().ends_with("is farther away than 1048576"));
    }
    let mut parts = sound();
    parts.head = Head::Categorical { symbols: 1 };
    assert!(build(parts).unwrap_err().to_string().contains("at least 2 symbols"));
}

#[test]
fn a_graph_of_one_s_own_runs_with_weights_of_one_s_own() {
    let graph = || build(sound()).expect("a sound graph");
    let random = Weights::synthetic_for(graph(), 3);
    let names: Vec<_> = ["first/V", "first/g", "first/b", "second/V", "second/g", "second/b"].into();
    let arrays: HashMap<_, _> =
        names.iter().map(|name| (name.to_string(), random.array(name).unwrap().to_vec())).collect();
    let own = Weights::from_arrays(graph(), arrays.clone(), false).unwrap();
    let mut images = Vec::new();
    for weights in [&random, &own] {
        let mut engine = Device::Cpu.open(weights).unwrap();
        images.push(Run::new(3).seed(4).size(5, 7).generate(&mut engine).unwrap().images);
    }
    assert_eq!(images[0], images[1]);
    // Bytes stand for the nearest symbol, so that a file of them is scored as the floats are.
    let mut engine = Device::Cpu.open(&own).unwrap();
    let bytes: Array4<u8> = fast_pixel_cnn::media::images::to_bytes(images[0].view());
    let scores = evaluate(&mut engine, &Task::new(bytes.view())).unwrap();
    assert_eq!(scores.nats, engine.nats(images[0].view(), None).unwrap());

    for (change, expected) in [
        (("second/b", None), "arrays: expected second/b [5], found none of that name"),
        (
            ("third/b", Some(vec![0.0])),
            "arrays: expected those of the graph's parameters, found third/b beside them",
        ),
        (("second/b", Some(vec![0.0; 4])), "arrays: "),
        (("second/b", Some(vec![f32::NAN; 5])), "arrays: "),
    ] {
        let mut arrays = arrays.clone();
        match change {
            (name, None) => drop(arrays.remove(name)),
            (name, Some(values)) => drop(arrays.insert(name.into(), values)),
        }
        let error = Weights::from_arrays(graph(), arrays, false).unwrap_err().to_string();
        assert!(error.starts_with(expected), "{error}");
    }
}
