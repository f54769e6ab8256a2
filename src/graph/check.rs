//! Which graphs are refused, and why.
//!
//! The idea: a backend trusts a graph: that each source is made before it is read, that no position looks at what
//! comes after it, and that all shapes fit. So a graph that does not hold to that is never built.

use super::{Activation, Bias, Graph, IMAGE, Layer, MapId, ParameterId, ParameterKind, Tap};
use crate::error::{Error, Result};

fn fault<T>(layer: &str, fault: impl Into<String>) -> Result<T> {
    Err(Error::Graph { layer: layer.into(), fault: fault.into() })
}

/// The maps that come from outside.
pub fn inputs(graph: &Graph) -> Result<()> {
    let values = graph.head.values();
    match graph.maps.first() {
        Some(image) if image.stride == 1 && [values, values + 1].contains(&image.channels) => {}
        _ => {
            return fault("image", format!("map 0 has stride 1 and {values} channels, or a constant 1 more"));
        }
    }
    match graph.known {
        Some(map) if map == IMAGE || map >= graph.maps.len() || graph.maps[map].stride != 1 => {
            fault("known", "the given map is another than the image, of stride 1")
        }
        _ if graph.maps.iter().any(|m| m.stride == 0 || m.channels == 0) => {
            fault("maps", "a map has a stride and channels")
        }
        _ => Ok(()),
    }
}

/// The whole, when all layers are there.
pub fn outputs(graph: &Graph, made: &[bool]) -> Result<()> {
    let Some(last) = graph.layers.last() else { return fault("graph", "a graph has layers") };
    let logits = &graph.maps[last.output];
    if logits.channels != graph.head.logits() || logits.stride != 1 {
        return fault(&last.name, format!("the last layer makes {} logits of stride 1", graph.head.logits()));
    }
    match made.iter().position(|made| !made) {
        Some(map) => fault(&graph.maps[map].name, "no layer makes this map"),
        None => Ok(()),
    }
}

/// One layer, when those before it are there.
pub fn layer(graph: &Graph, layer: &Layer, made: &[bool]) -> Result<()> {
    let fault = |what: &str| fault(&layer.name, what);
    if layer.output >= made.len() || made[layer.output] {
        return fault("its output is a map that no other layer makes");
    }
    if layer.taps.is_empty() || layer.taps.iter().any(|t| t.source >= made.len() || !made[t.source]) {
        return fault("it has taps, and reads what layers before it have made");
    }
    let strides = |t: &Tap| graph.maps[t.source].stride;
    let (source, output) = (strides(&layer.taps[0]), graph.stride(layer));
    if layer.taps.iter().any(|t| strides(t) != source) {
        return fault("all its sources have one stride");
    }
    if !source.is_multiple_of(output) && !output.is_multiple_of(source) {
        return fault("the strides of its sources and of its output divide each other");
    }
    if let Some(add) = layer.epilogue.add {
        let like = |map: MapId| (graph.maps[map].stride, graph.maps[map].channels);
        if add >= made.len() || !made[add] || like(add) != like(layer.output) {
            return fault("what its epilogue adds is made before, with the output's stride and channels");
        }
    }
    for tap in &layer.taps {
        self::tap(graph, layer, tap)?;
    }
    for parity in graph.parities(layer) {
        if layer.taps_of(parity).next().is_none() {
            return fault("outputs of every parity have a tap");
        }
    }
    let sums = graph.accumulators(layer);
    let fits = |id: ParameterId, class: bool| {
        let parameter = graph.parameters.get(id);
        parameter.is_some_and(|p| (p.kind == ParameterKind::PerClass) == class && p.outputs == sums)
    };
    let biases = layer.biases.iter().all(|bias| match *bias {
        Bias::Every(id) => fits(id, false),
        Bias::PerClass(id) => fits(id, true) && graph.parameters[id].inputs == graph.classes,
    });
    if !biases || !layer.taps.iter().all(|t| fits(t.parameter, false)) {
        return fault(
            "its parameters have as many outputs as its sum has channels, and class terms as many inputs \
                      as there are classes",
        );
    }
    Ok(())
}

/// One tap.
fn tap(graph: &Graph, layer: &Layer, tap: &Tap) -> Result<()> {
    let fault = |what: &str| fault(&layer.name, format!("the tap at ({}, {}): {what}", tap.row, tap.column));
    let [_, step] = graph.steps(layer);
    if tap.parity.is_some_and(|p| p[0] >= step || p[1] >= step) {
        return fault("its parity is below the ratio of the strides");
    }
    // Rows below have not been generated; of this row only what lies to the left, or, but for the image itself,
    // at the pixel. Outputs of another parity than 0 lie below the row that they look around.
    let parity = tap.parity.unwrap_or([0, 0]);
    let last = if tap.source == IMAGE { -1 } else { 0 };
    if tap.row > 0 || (!graph.is_known(tap, parity) && tap.column > last) {
        return fault("it looks at pixels that come later");
    }
    let channels = graph.channels(tap.source, layer.read);
    let parameter = graph.parameters.get(tap.parameter);
    let inside = parameter.is_some_and(|p| {
        tap.position < p.positions() && tap.inputs.iter().all(|r| r.start <= r.end && r.end <= p.inputs)
    });
    if !inside || tap.in_channels() != channels {
        return fault(&format!(
            "it has an input of its parameter for each of the {channels} channels that it reads"
        ));
    }
    let ones = tap.source == IMAGE && graph.ones() && layer.read == Activation::Identity;
    if tap.bias_on_ones.is_some_and(|id| !ones || !has_bias(graph, layer, id)) {
        return fault("a bias on the constant 1 is one of this sum's, and the image has that channel");
    }
    Ok(())
}

fn has_bias(graph: &Graph, layer: &Layer, id: ParameterId) -> bool {
    let parameter = graph.parameters.get(id);
    parameter.is_some_and(|p| p.kind != ParameterKind::PerClass && p.outputs == graph.accumulators(layer))
}
