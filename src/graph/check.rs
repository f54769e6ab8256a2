//! Which graphs are refused, and why.
//!
//! The idea: a backend trusts a graph: that each source is made before it is read, that no position looks at what
//! comes after it, and that all shapes fit. So a graph that does not hold to that is never built.

use super::{
    Activation, Bias, Encoding, Graph, IMAGE, Layer, MapId, Parameter, ParameterId, ParameterKind, Tap,
};
use crate::error::{Error, Result};
use crate::heads::Head;

/// The widest stride, and the farthest that a tap reaches: what is beyond is taken for a mistake, not for a network.
const FARTHEST: usize = 1 << 20;
const WIDEST: usize = 1 << 10;

fn fault<T>(place: impl Into<String>, fault: impl Into<String>) -> Result<T> {
    Err(Error::Graph { layer: place.into(), fault: fault.into() })
}

/// Head, parameters, and the maps that come from outside.
pub fn inputs(graph: &Graph) -> Result<()> {
    match graph.head {
        Head::MixtureOfLogistics { mixtures: 1.., channels: 1 | 3 } | Head::Categorical { symbols: 2.. } => {}
        head => {
            let known = "a mixture has components and 1 or 3 channels, and there are at least 2 symbols";
            return fault("head", format!("{head:?}, but {known}"));
        }
    }
    for (i, Parameter { name, .. }) in graph.parameters.iter().enumerate() {
        if graph.parameters[..i].iter().any(|other| other.name == *name) {
            return fault(format!("parameter {name}"), "another parameter has the same name");
        }
    }
    for map in &graph.maps {
        if map.channels == 0 || !(1..=WIDEST).contains(&map.stride) {
            let found = format!("{} channels, stride {}", map.channels, map.stride);
            return fault(format!("map {}", map.name), format!("{found}; strides are 1 to {WIDEST}"));
        }
    }
    let values = graph.head.values();
    let (channels, wanted) = match (graph.input.encoding, graph.head) {
        (Encoding::Values, _) => {
            (values..=values + 1, format!("the head's {values} channels, or one more for a constant 1"))
        }
        (Encoding::OneHot, Head::Categorical { symbols }) => {
            (symbols..=symbols, format!("a channel for each of {symbols} symbols"))
        }
        (Encoding::MuLaw, Head::Categorical { .. }) => (1..=1, "one channel, the amplitude".into()),
        (encoding, head) => {
            return fault("input", format!("{encoding:?} is of symbols, the head is {head:?}"));
        }
    };
    if graph.maps.first().is_none_or(|image| image.stride != 1 || !channels.contains(&image.channels)) {
        return fault("map 0", format!("it is the image, which has stride 1 and {wanted}"));
    }
    match graph.input.known {
        Some(map) if map == IMAGE || graph.maps.get(map).is_none_or(|m| m.stride != 1) => {
            fault("known map", "it is no map, or the image, or its stride is not 1")
        }
        _ => Ok(()),
    }
}

/// The whole, when all layers are there.
pub fn outputs(graph: &Graph, computed: &[bool]) -> Result<()> {
    let Some(last) = graph.layers.last() else { return fault("layers", "there are none") };
    let (logits, wanted) = (&graph.maps[last.output], graph.head.logits());
    if logits.channels != wanted || logits.stride != 1 {
        let found = format!("{} channels of stride {}", logits.channels, logits.stride);
        let fault = format!("the last layer makes {found}, the head takes {wanted} of stride 1");
        return self::fault(format!("layer {}", last.name), fault);
    }
    match computed.iter().position(|computed| !computed) {
        Some(map) => fault(format!("map {}", graph.maps[map].name), "no layer makes it"),
        None => Ok(()),
    }
}

/// One layer, when those before it are there.
pub fn layer(graph: &Graph, layer: &Layer, computed: &[bool]) -> Result<()> {
    let fault = |what: String| fault(format!("layer {}", layer.name), what);
    let name = |map: MapId| graph.maps.get(map).map_or("that is none", |map| &map.name);
    let is_computed = |map: MapId| computed.get(map).copied().unwrap_or(false);
    if layer.output >= computed.len() || is_computed(layer.output) {
        return fault(format!(
            "it makes map {} ({}), which is none or made already",
            layer.output,
            name(layer.output)
        ));
    }
    let Some(first) = layer.taps.first() else { return fault("it has no taps".into()) };
    let read = layer.taps.iter().map(|tap| tap.source).chain(layer.epilogue.add);
    if let Some(map) = read.into_iter().find(|&map| !is_computed(map)) {
        return fault(format!("it reads map {map} ({}), which no earlier layer makes", name(map)));
    }
    let stride = |map: MapId| graph.maps[map].stride;
    let (source, output) = (stride(first.source), stride(layer.output));
    if let Some(other) = layer.taps.iter().find(|tap| stride(tap.source) != source) {
        let other = stride(other.source);
        return fault(format!("it reads maps of strides {source} and {other}: its sources have one stride"));
    }
    if !source.is_multiple_of(output) && !output.is_multiple_of(source) {
        return fault(format!(
            "neither of strides {source} (sources) and {output} (output) divides the other"
        ));
    }
    if let Some(add) = layer.epilogue.add {
        let of = |map: MapId| (stride(map), graph.maps[map].channels);
        if of(add) != of(layer.output) {
            return fault(format!(
                "it adds map {}, which has not the output's stride and channels",
                name(add)
            ));
        }
    }
    for tap in &layer.taps {
        self::tap(graph, layer, tap)?;
    }
    if let Some(parity) = graph.parities(layer).into_iter().find(|p| layer.taps_of(*p).next().is_none()) {
        return fault(format!("no tap serves outputs of parity {parity:?}"));
    }
    for bias in &layer.biases {
        let (Bias::Every(id) | Bias::PerClass(id)) = *bias;
        let per_class = matches!(bias, Bias::PerClass(_));
        let parameter = parameter(graph, layer, id, per_class)?;
        if !per_class && !parameter.bias {
            return fault(format!("parameter {} has no bias", parameter.name));
        }
    }
    Ok(())
}

/// Looks a parameter of a layer up, a class term or another, and checks its outputs.
fn parameter<'a>(graph: &'a Graph, layer: &Layer, id: ParameterId, per_class: bool) -> Result<&'a Parameter> {
    let fault = |what: String| fault(format!("layer {}", layer.name), what);
    let Some(parameter) = graph.parameters.get(id) else {
        return fault(format!("there is no parameter {id}"));
    };
    let Parameter { name, kind, inputs, outputs, .. } = parameter;
    let accumulators = graph.accumulators(layer);
    if *outputs != accumulators {
        let gated = if layer.epilogue.gated { ", values and gates" } else { "" };
        return fault(format!(
            "parameter {name} has {outputs} outputs, the sum has {accumulators} channels{gated}"
        ));
    }
    if (*kind == ParameterKind::PerClass) != per_class {
        return fault(format!(
            "parameter {name} is {kind:?}: class terms are biases per class, and nothing else is"
        ));
    }
    if per_class && *inputs != graph.classes {
        return fault(format!("parameter {name} has {inputs} classes, the graph has {}", graph.classes));
    }
    Ok(parameter)
}

/// One tap.
fn tap(graph: &Graph, layer: &Layer, tap: &Tap) -> Result<()> {
    let source = &graph.maps[tap.source].name;
    let fault = |what: String| {
        let place = format!("the tap at row {:+}, column {:+} of map {source}", tap.row, tap.column);
        fault(format!("layer {}", layer.name), format!("{place} {what}"))
    };
    let [_, step] = graph.steps(layer);
    if tap.parity.is_some_and(|p| p[0] >= step || p[1] >= step) {
        return fault(format!("serves parity {:?}, but the ratio of the strides is {step}", tap.parity));
    }
    if tap.row.unsigned_abs() > FARTHEST || tap.column.unsigned_abs() > FARTHEST {
        return fault(format!("is farther away than {FARTHEST}"));
    }
    // Rows below have not been generated; of this row only what lies to the left, or, but for the image itself
    // where a position holds its own pixel, at the pixel. Outputs of another parity than 0 lie below the row that they look around.
    let parity = tap.parity.unwrap_or([0, 0]);
    let last = if tap.source == IMAGE && !graph.input.previous { -1 } else { 0 };
    if tap.row > 0 || (!graph.is_known(tap, parity) && tap.column > last) {
        let allowed = format!("in its own row it may look as far as column {last:+}");
        return fault(format!("looks at pixels that come later: {allowed}"));
    }
    let parameter = parameter(graph, layer, tap.parameter, false)?;
    let (name, kernel, inputs) = (&parameter.name, parameter.positions(), parameter.inputs);
    if tap.position >= kernel {
        return fault(format!("has position {}, but the kernel of {name} has {kernel}", tap.position));
    }
    let channels = graph.channels(tap.source, layer.read);
    let mut covered: Vec<_> = tap.inputs.clone();
    covered.sort_by_key(|range| range.start);
    let apart = covered.windows(2).all(|pair| pair[0].end <= pair[1].start);
    let inside = covered.iter().all(|range| range.start <= range.end && range.end <= inputs);
    if !apart || !inside || tap.in_channels() != channels {
        let found = format!("reads {channels} channels with inputs {:?} of {name}", tap.inputs);
        return fault(format!("{found}, which has {inputs}: one input for each channel, none twice"));
    }
    if let Some(id) = tap.bias_on_ones {
        if !self::parameter(graph, layer, id, false)?.bias {
            return fault("has a bias on the constant 1 of a parameter that has none".into());
        }
        if tap.source != IMAGE || !graph.ones() || layer.read != Activation::Identity {
            return fault("has a bias on the constant 1, which only the image has, read as it is".into());
        }
    }
    Ok(())
}
