//! The shifted convolutions: every piece of odd-sized models, every part and span, in every form and precision.

use bytemuck::bytes_of;
use serde_json::Value;

use super::{device_for, noise, offset, vgpu};
use crate::cuda::abi::{Batch, Cursor, Grid, SLICE, SPREAD_BLOCKS, SPREAD_LEAST, Span, reciprocal};
use crate::cuda::cost::{Form, Room};
use crate::cuda::driver::{Buffer, Device};
use crate::cuda::packed::Packed;
use crate::cuda::stage::{Maps, Stage, Table};
use crate::graph::{Activation, Bias};
use crate::models::{Nonlinearity, PixelCnnPp};
use crate::plan::layout::{Extent, Storage};
use crate::plan::steps::Run;
use crate::plan::{Part, Piece, Plan};
use crate::precision::{Precision, bf16};
use crate::weights::Weights;

const EXTENT: Extent = Extent { batch: 3, height: 8, width: 12 };
/// Few blocks, so that each has several tiles.
const ROOM: Room = Room { multiprocessors: 3, resident: 2, spread: 0 };

/// Wavefronts that bank conflicts have added, whatever kernel ran.
fn conflicts(report: &Value) -> u64 {
    let kernels = report.pointer("/kernels").and_then(Value::as_object).unwrap();
    let of = |kernel: &Value, what: &str| kernel.pointer(what).and_then(Value::as_u64).unwrap();
    kernels.values().map(|k| of(k, "/shared_loads/conflicts") + of(k, "/shared_stores/conflicts")).sum()
}

/// A model's weights on the device and numbers in an arena, and what is needed to compute with them here.
struct Bench {
    device: Device,
    config: PixelCnnPp,
    precision: Precision,
    plan: Plan,
    weights: Weights,
    packed: Packed,
    maps: Maps,
    /// Where hoisted accumulators lie: room for a row of any layer.
    hoisted: usize,
    arena: Vec<f32>,
    labels: [i32; EXTENT.batch],
    floats: Buffer<f32>,
}

impl Bench {
    /// `stores`: maps are stored through the activation of their readers, too.
    fn new(config: PixelCnnPp, storage: Storage, precision: Precision, stores: bool) -> Bench {
        let device = device_for(precision);
        let plan = Plan::new(config.graph());
        let weights = Weights::synthetic(config, 5);
        let packed = Packed::places(&plan, precision);
        let mut floats = device.zeroed(packed.len).unwrap();
        packed.fill(&plan, &weights, |at, part| device.write(&mut floats, at, part)).unwrap();
        let read = plan.graph.activations_read();
        let of_map =
            |read: &Vec<_>| read.iter().copied().find(|&read| stores && read != Activation::Identity);
        let mut maps = Maps::new(&plan, storage, EXTENT, read.iter().map(of_map).collect());
        let widest = packed.pieces.iter().map(|p| p.width()).max().unwrap();
        let hoisted = maps.layout.reserve(&[EXTENT.batch, EXTENT.width, widest]);
        let mut arena = vec![0.0; maps.layout.len];
        let mut next = noise(9);
        for (id, (grid, map)) in maps.grids.iter().zip(&plan.graph.maps).enumerate() {
            let first = if grid.above == grid.rows { 0 } else { grid.above };
            for slot in first..grid.rows {
                for image in 0..EXTENT.batch {
                    for column in 0..(EXTENT.width / map.stride) as i32 {
                        let at = offset(grid, EXTENT.batch, image, slot - grid.above + grid.rows, column);
                        arena[at..at + map.channels].fill_with(|| 2.0 * next());
                        for at in at..at + map.channels {
                            for (behind, x) in Self::beside(grid, maps.stores(id), arena[at]) {
                                arena[at + behind] = x as f32;
                            }
                        }
                    }
                }
            }
        }
        arena[hoisted..].fill_with(&mut next);
        let labels = [0, 1, 2].map(|i| i % config.classes.max(1) as i32);
        Bench { device, config, precision, plan, weights, packed, maps, hoisted, arena, labels, floats }
    }

    /// The arena after a stage has run at a place of the image.
    fn run(&self, table: &Table, [row, column]: [usize; 2]) -> Vec<f32> {
        let device = &self.device;
        let mut arena = device.zeroed::<f32>(self.arena.len()).unwrap();
        device.write(&mut arena, 0, &self.arena).unwrap();
        let records = device.upload(&table.records()).unwrap();
        let classes = device.upload(bytemuck::cast_slice(&self.labels)).unwrap();
        let cursor = Cursor { row: row as i32, column: column as i32, fault: u64::MAX };
        let cursor = device.upload(bytes_of(&cursor)).unwrap();
        let batch = Batch {
            arena: arena.as_device_ptr().as_raw(),
            weights: self.floats.as_device_ptr().as_raw(),
            classes: classes.as_device_ptr().as_raw(),
            cursor: cursor.as_device_ptr().as_raw(),
            size: EXTENT.batch as i32,
            height: EXTENT.height as i32,
            width: EXTENT.width as i32,
            parts: table.parts() as i32,
            of_size: reciprocal(EXTENT.batch),
            padding: 0,
        };
        let launch = table.launches[0];
        let records = records.as_device_ptr().as_raw();
        let args = [bytes_of(&records), bytes_of(&batch)];
        // SAFETY: the arguments of masked_conv.
        unsafe { device.launch(launch.kernel(), launch.shape(table.record()), &args).unwrap() };
        let mut after = vec![0.0; self.arena.len()];
        device.read(&arena, &mut after).unwrap();
        after
    }

    /// What a layer reads of a channel: `[sign][...]` of the activation.
    fn read(read: Activation, x: f32, sign: usize) -> f64 {
        let x = f64::from(x);
        let elu = |x: f64| if x > 0.0 { x } else { x.exp_m1() };
        match read {
            Activation::Identity => x,
            Activation::Elu => elu(x),
            Activation::Relu => x.max(0.0),
            Activation::ConcatElu => elu(if sign == 0 { x } else { -x }),
        }
    }

    /// What is stored beside a value: how many floats behind it, and what.
    fn beside(grid: &Grid, activation: Option<Activation>, x: f32) -> Vec<(usize, f64)> {
        let copies = activation.map_or(0, |read| read.copies());
        let copy =
            |sign: usize| ((sign + 1) * grid.beside as usize, Self::read(activation.unwrap(), x, sign));
        (0..copies).map(copy).collect()
    }

    /// What a weight is that the row phase reads, or the pixel phase.
    fn stored(&self, w: f32, of_row: bool) -> f64 {
        let narrow = self.precision == Precision::Bf16 && !of_row;
        f64::from(if narrow { f32::from_bits(u32::from(bf16(w)) << 16) } else { w })
    }

    /// The oracle: accumulators or outputs of a stage at one position, by their place in the arena.
    fn masked_conv(&self, index: usize, part: Part, [image, row, column]: [usize; 3]) -> Vec<(usize, f64)> {
        let (piece, graph) = (&self.plan.pieces[index], &self.plan.graph);
        let layer = self.plan.layer(piece);
        let at = |map: usize, row: i32, column: i32, channel: usize| {
            offset(&self.maps.grids[map], EXTENT.batch, image, row, column) + channel
        };
        let columns = piece.steps(EXTENT.width);
        let fold = |id: usize| self.weights.fold(&graph.parameters[id]).unwrap();
        // Where an output's accumulator is stored: a gated layer alternates slices of values and gates.
        let (n, count) = (graph.maps[layer.output].channels, graph.accumulators(layer));
        let place = |o: usize| {
            let (half, channel) = (o / n, o % n);
            let slice = if count > n { channel / SLICE * 2 + half } else { channel / SLICE };
            let width = self.packed.pieces[index].width();
            self.hoisted + (image * columns + column) * width + slice * SLICE + channel % SLICE
        };
        let class = self.labels[image] as usize;
        let term = |bias: &Bias, o: usize| match *bias {
            Bias::Every(id) => f64::from(fold(id).bias[o]),
            Bias::PerClass(id) => {
                let terms = self.weights.class_term(&graph.parameters[id]).unwrap();
                f64::from(terms[class * count + o])
            }
        };
        let initial = |o: usize| match part {
            part if part.loads() => f64::from(self.arena[place(o)]),
            _ => layer.biases.iter().map(|bias| term(bias, o)).sum::<f64>(),
        };
        let mut accumulators: Vec<f64> = (0..count).map(initial).collect();
        let taps = piece.part(part);
        for (index, tap) in self.plan.taps(piece).enumerate().skip(taps.start).take(taps.len()) {
            let parameter = &graph.parameters[tap.parameter];
            let folded = fold(tap.parameter);
            let channels = graph.maps[tap.source].channels;
            let [r, c] = [row, column].map(|step| (step * piece.source_step) as i32);
            let (r, c) = (r + tap.row as i32, c + tap.column as i32);
            for (i, input) in tap.inputs.iter().cloned().flatten().enumerate() {
                let x = self.arena[at(tap.source, r, c, i % channels)];
                let x = Self::read(layer.read, x, i / channels);
                let on_ones = tap.bias_on_ones.filter(|_| i + 1 == tap.in_channels()).map(fold);
                for (o, sum) in accumulators.iter_mut().enumerate() {
                    let w = folded.kernel[(tap.position * parameter.inputs + input) * parameter.outputs + o];
                    let w = w + on_ones.as_ref().map_or(0.0, |folded| folded.bias[o]);
                    *sum += x * self.stored(w, index < piece.hoisted);
                }
            }
        }
        if part.stores() {
            return accumulators.into_iter().enumerate().map(|(o, sum)| (place(o), sum)).collect();
        }
        let r = (row * piece.output_step + piece.parity[0]) as i32;
        let c = (column * piece.output_step + piece.parity[1]) as i32;
        let outputs = (0..n).map(|o| {
            let value = if layer.epilogue.tanh { accumulators[o].tanh() } else { accumulators[o] };
            let gate = if layer.epilogue.gated { 1.0 / (1.0 + (-accumulators[n + o]).exp()) } else { 1.0 };
            let add = layer.epilogue.add.map_or(0.0, |map| f64::from(self.arena[at(map, r, c, o)]));
            (at(layer.output, r, c, o), value * gate + add)
        });
        outputs.collect()
    }

    /// What is stored beside an output of a stage.
    fn copies(&self, index: usize, part: Part, x: f32) -> Vec<(usize, f64)> {
        let output = self.plan.layer(&self.plan.pieces[index]).output;
        let stored = self.maps.stores(output);
        Self::beside(&self.maps.grids[output], stored.filter(|_| !part.stores()), x)
    }

    /// Runs a stage through all kernels and compares; in clusters of one size, which is another one for the next piece.
    fn check(&self, index: usize, part: Part, span: Span) {
        let sizes: Vec<_> = (SPREAD_LEAST..=SPREAD_BLOCKS).collect();
        self.check_in(&[sizes[index % sizes.len()]], index, part, span);
    }

    /// The same in clusters of some sizes.
    fn check_in(&self, sizes: &[usize], index: usize, part: Part, span: Span) {
        let piece: &Piece = &self.plan.pieces[index];
        let source = self.maps.source(&self.plan, Run { piece: index, part }, true);
        let packed = &self.packed.pieces[index];
        let stage = Stage::new(&self.plan, index, packed, &self.maps, (part, span), self.hoisted, source);
        // The first place in the lower right at which the stage runs.
        let place = [0, 1].map(|axis| (4..12).find(|&at| piece.step(axis, at).is_some()).unwrap());
        let steps = [0, 1].map(|axis| piece.step(axis, place[axis]).unwrap());
        let place = if span == Span::Image { [0, 0] } else { place };
        let (layer, precision) = (&self.plan.layer(piece).name, self.precision);
        let name = format!("{layer} of {}, {part:?}, {span:?}, {precision:?}", self.config);
        // A cluster's blocks may need a multiprocessor each.
        let spread = self.device.properties.launches().spread;
        let room = |form| match form {
            Form::Spread(_) => Room { multiprocessors: SPREAD_BLOCKS, spread, ..ROOM },
            _ => ROOM,
        };
        let work = [stage.work(EXTENT.batch)];
        let other = |form: &Form| matches!(form, Form::Spread(blocks) if !sizes.contains(blocks));
        let forms = Form::ALL.into_iter().filter(|form| form.takes(&work, room(*form)) && !other(form));
        let forms: Vec<_> = forms.collect();
        let in_clusters = forms.iter().any(|form| matches!(form, Form::Spread(_)));
        assert!(spread == 0 || in_clusters, "{name}: {} chunks fit no cluster", work[0].chunks);
        let arenas = forms.iter().map(|&form| {
            let mut table = Table::default();
            table.push(vec![stage.clone()], EXTENT.batch, room(form), &[form]);
            if vgpu::is_virtual() {
                vgpu::reset(false);
            }
            let arena = self.run(&table, place);
            if vgpu::is_virtual() {
                assert_eq!(conflicts(&vgpu::report()), 0, "{name}: {form:?} has bank conflicts");
            }
            arena
        });
        let arenas: Vec<_> = arenas.collect();
        let (gemv, others) = arenas.split_first().expect("one form takes any stage");
        for (form, other) in forms[1..].iter().zip(others) {
            let same = other.iter().zip(gemv).all(|(a, b)| a.to_bits() == b.to_bits());
            assert!(same, "{name}: {form:?} differs");
        }
        let (rows, columns) = match span {
            Span::Pixel => (steps[0]..steps[0] + 1, steps[1]..steps[1] + 1),
            Span::Row => (steps[0]..steps[0] + 1, 0..piece.steps(EXTENT.width)),
            Span::Image => (0..piece.steps(EXTENT.height), 0..piece.steps(EXTENT.width)),
        };
        let mut left = self.arena.clone();
        for row in rows {
            for column in columns.clone() {
                for image in 0..EXTENT.batch {
                    for (at, expected) in self.masked_conv(index, part, [image, row, column]) {
                        let mut check = |at: usize, expected: f64| {
                            let off = (f64::from(gemv[at]) - expected).abs();
                            assert!(off < 2e-5, "{name} at {image}, {row}, {column}: off by {off:e}");
                            left[at] = gemv[at];
                        };
                        check(at, expected);
                        for (behind, x) in self.copies(index, part, gemv[at]) {
                            check(at + behind, x);
                        }
                    }
                    // The padding of stored accumulators is noise here, zeros in an engine; so are the outputs from it.
                    if part.loads() {
                        let channels = self.plan.graph.maps[self.plan.layer(piece).output].channels;
                        let (at, _) = self.masked_conv(index, part, [image, row, column])[0];
                        for at in at + channels..at + channels.next_multiple_of(4) {
                            left[at] = gemv[at];
                            for (behind, _) in self.copies(index, part, gemv[at]) {
                                left[at + behind] = gemv[at + behind];
                            }
                        }
                    }
                }
            }
        }
        // Nothing else was written, but for the accumulators' padding to whole slices.
        let others = left.iter().zip(gemv).enumerate().filter(|(at, _)| *at < self.hoisted);
        let touched = others.filter(|(_, (a, b))| a.to_bits() != b.to_bits() && **b != 0.0).count();
        assert_eq!(touched, 0, "{name}: {touched} floats beside the outputs were written");
    }
}

fn check_all(
    filters: usize,
    mixtures: usize,
    classes: usize,
    nonlinearity: Nonlinearity,
    precision: Precision,
) {
    let config = PixelCnnPp { resnets: 1, filters, mixtures, channels: 3, classes, nonlinearity };
    for (storage, stores) in [(Storage::Ring, false), (Storage::Ring, true), (Storage::Full, false)] {
        let bench = Bench::new(config, storage, precision, stores);
        for (index, piece) in bench.plan.pieces.iter().enumerate() {
            match storage {
                Storage::Full => bench.check(index, Part::Whole, Span::Image),
                Storage::Ring => {
                    bench.check(index, Part::Whole, Span::Row);
                    let parts = match (bench.plan.is_cut_above(piece), piece.row_part()) {
                        (true, _) => vec![Part::Above, Part::Within],
                        (false, Some(Part::Hoisted)) => vec![Part::Hoisted, Part::Rest],
                        _ => Vec::new(),
                    };
                    parts.into_iter().for_each(|part| bench.check(index, part, Span::Row));
                    if let Some(part) = piece.pixel_part() {
                        bench.check(index, part, Span::Pixel);
                    }
                }
            }
        }
    }
}

#[test]
fn masked_conv_with_concat_elu_and_classes() {
    let _turn = super::turn();
    check_all(13, 1, 3, Nonlinearity::ConcatElu, Precision::F32);
}

#[test]
fn masked_conv_with_elu() {
    let _turn = super::turn();
    check_all(9, 2, 0, Nonlinearity::Elu, Precision::F32);
}

#[test]
fn masked_conv_with_relu_and_whole_chunks() {
    let _turn = super::turn();
    // Ten slices, or with a gate twenty: of `masked_conv_gemm` one block for all, or two, of which one has few.
    check_all(40, 1, 0, Nonlinearity::Relu, Precision::F32);
}

/// As many chunks as the blocks of a cluster take: 63 of four, 126 of eight.
#[test]
fn masked_conv_in_full_clusters() {
    let _turn = super::turn();
    let nonlinearity = Nonlinearity::ConcatElu;
    let config = PixelCnnPp { resnets: 1, filters: 168, mixtures: 1, channels: 3, classes: 0, nonlinearity };
    let bench = Bench::new(config, Storage::Ring, Precision::F32, true);
    let gated = |piece: &Piece| bench.plan.is_cut_above(piece) && bench.plan.layer(piece).epilogue.gated;
    let index = bench.plan.pieces.iter().position(gated).expect("a resnet of the vertical stream");
    bench.check_in(&[4, 5, 6, 7, 8], index, Part::Within, Span::Row);
    bench.check_in(&[8], index, Part::Whole, Span::Row);
}

/// Of a layer with taps of both phases some weights are float32.
#[test]
fn masked_conv_with_bfloat16_weights() {
    let _turn = super::turn();
    check_all(13, 1, 3, Nonlinearity::ConcatElu, Precision::Bf16);
    check_all(20, 1, 0, Nonlinearity::Relu, Precision::Bf16);
}
