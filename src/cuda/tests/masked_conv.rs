//! The shifted convolutions: every layer of odd-sized models, every part and span, in both forms.

use bytemuck::{Zeroable, bytes_of, cast_slice};

use super::{device, noise, offset};
use crate::config::{ModelConfig, Nonlinearity};
use crate::cuda::driver::Device;
use crate::cuda::kernels::Kernel;
use crate::cuda::layout::{Extent, Layout, Storage};
use crate::cuda::packed::Packed;
use crate::cuda::stage::{Batch, Cursor, Span, Stage, THREADS};
use crate::cuda::table::{Part, Piece, Table, on_load};
use crate::network::{Bias, Epilogue, Form, Network, Sampling};
use crate::weights::Weights;

const EXTENT: Extent = Extent { batch: 3, height: 8, width: 12 };

/// A model's weights on the device and numbers in an arena, and what is needed to compute with them here.
struct Bench {
    device: Device,
    network: Network,
    weights: Weights,
    packed: Packed,
    layout: Layout,
    /// Sums for a layer's widest row.
    sums: usize,
    arena: Vec<f32>,
    labels: [i32; EXTENT.batch],
    floats: crate::cuda::driver::Buffer<f32>,
}

impl Bench {
    fn new(config: ModelConfig, storage: Storage) -> Bench {
        let device = device();
        let network = Network::new(config);
        let weights = Weights::synthetic(config, 5);
        let packed = Packed::plan(&network);
        let mut floats = device.zeroed(packed.len).unwrap();
        packed.fill(&network, &weights, |at, part| device.write(&mut floats, at as usize, part)).unwrap();
        let mut layout = Layout::new(&network, storage, EXTENT);
        let widest = packed.layers.iter().flatten().map(|p| p.slices * 4).max().unwrap();
        let sums = layout.reserve(EXTENT.batch * EXTENT.width * widest);
        let mut arena = vec![0.0; layout.len];
        let mut next = noise(9);
        for (grid, tensor) in layout.grids.iter().zip(&network.tensors) {
            let first = if grid.above == grid.rows { 0 } else { grid.above };
            for slot in first..grid.rows {
                for image in 0..EXTENT.batch {
                    for column in 0..grid.columns - 2 {
                        let at = offset(grid, EXTENT.batch, image, slot - grid.above + grid.rows, column);
                        arena[at..at + tensor.channels].fill_with(|| 2.0 * next());
                    }
                }
            }
        }
        arena[sums..].fill_with(&mut next);
        let labels = [0, 1, 2].map(|i| i % config.classes.max(1) as i32);
        Bench { device, network, weights, packed, layout, sums, arena, labels, floats }
    }

    /// The arena after a stage has run at a place of the image.
    fn run(&self, table: &Table, [row, column]: [usize; 2]) -> Vec<f32> {
        let device = &self.device;
        let mut arena = device.zeroed::<f32>(self.arena.len()).unwrap();
        device.write(&mut arena, 0, &self.arena).unwrap();
        let stages = device.upload(cast_slice(&table.stages)).unwrap();
        let classes = device.upload(cast_slice(&self.labels)).unwrap();
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
            ..Batch::zeroed()
        };
        let step = table.steps[0];
        let kernel = if step.wide { Kernel::Wide } else { Kernel::Narrow };
        let stages = stages.as_device_ptr().as_raw();
        let args = [bytes_of(&stages), bytes_of(&batch)];
        let grid = [step.x, step.y, step.count as u32];
        // SAFETY: the arguments of masked_conv.
        unsafe { device.launch(kernel, grid, THREADS as u32, &args).unwrap() };
        let mut after = vec![0.0; self.arena.len()];
        device.read(&arena, &mut after).unwrap();
        after
    }

    /// What a layer reads of a channel: `[sign][...]` of the activation.
    fn read(&self, form: Form, x: f32, sign: usize) -> f64 {
        let x = f64::from(x);
        let elu = |x: f64| if x > 0.0 { x } else { x.exp_m1() };
        match (form, self.network.config.nonlinearity) {
            (Form::Raw, _) => x,
            (Form::Elu, _) | (Form::Activated, Nonlinearity::Elu) => elu(x),
            (Form::Activated, Nonlinearity::Relu) => x.max(0.0),
            (Form::Activated, Nonlinearity::ConcatElu) => elu(if sign == 0 { x } else { -x }),
        }
    }

    /// The oracle: sums and outputs of a stage at one position, by their place in the arena.
    fn masked_conv(&self, piece: &Piece, part: Part, [image, row, column]: [usize; 3]) -> Vec<(usize, f64)> {
        let layer = piece.layer;
        let at = |tensor: usize, row: i32, column: i32, channel: usize| {
            offset(&self.layout.grids[tensor], EXTENT.batch, image, row, column) + channel
        };
        let input_step = if layer.sampling == Sampling::Down { 2 } else { 1 };
        let output_step = if layer.sampling == Sampling::Up { 2 } else { 1 };
        let columns = EXTENT.width / piece.pixels();
        let hoisted = crate::schedule::hoisted_taps(&self.network, layer, piece.parity);
        let fold = |id: usize| self.weights.fold(&self.network.variables[id]).unwrap();
        // Where the row's sum of an output lies: a gated layer alternates slices of values and gates.
        let n = self.network.tensors[layer.output].channels;
        let place = |o: usize| {
            let (half, channel) = (o / n, o % n);
            let slice = if layer.sums > n { channel / 4 * 2 + half } else { channel / 4 };
            self.sums + (image * columns + column) * piece.sums() + slice * 4 + channel % 4
        };
        let mut sums: Vec<f64> = (0..layer.sums)
            .map(|o| match part {
                Part::Rest => f64::from(self.arena[place(o)]),
                _ => {
                    let of = |b: &Bias| match *b {
                        Bias::Every(id) => f64::from(fold(id).bias[o]),
                        Bias::OnOnes { .. } => 0.0,
                    };
                    let class = self.labels[image] as usize;
                    let term = layer.class_term.map(|id| {
                        self.weights.class_term(&self.network.variables[id]).unwrap()[class * layer.sums + o]
                    });
                    layer.biases.iter().map(of).sum::<f64>() + f64::from(term.unwrap_or(0.0))
                }
            })
            .collect();
        for (index, tap) in layer.taps_of(piece.parity).enumerate() {
            if (part == Part::Hoisted && index >= hoisted) || (part == Part::Rest && index < hoisted) {
                continue;
            }
            let variable = &self.network.variables[tap.variable];
            let folded = fold(tap.variable);
            let channels = self.network.tensors[tap.source].channels;
            let (r, c) =
                (row as i32 * input_step + tap.row as i32, column as i32 * input_step + tap.column as i32);
            for (i, input) in tap.inputs.iter().cloned().flatten().enumerate() {
                let x = self.arena[at(tap.source, r, c, i % channels)];
                let x = self.read(layer.form, x, i / channels);
                for (o, sum) in sums.iter_mut().enumerate() {
                    let w = folded.kernel[(tap.position * variable.inputs + input) * variable.outputs + o];
                    *sum += x * f64::from(w);
                    for bias in &layer.biases {
                        if let Bias::OnOnes { variable, tap } = *bias
                            && tap == index
                            && i + 1 == layer.depth
                        {
                            *sum += x * f64::from(fold(variable).bias[o]);
                        }
                    }
                }
            }
        }
        if part == Part::Hoisted {
            return sums.into_iter().enumerate().map(|(o, sum)| (place(o), sum)).collect();
        }
        let (r, c) = (row * output_step + piece.parity[0], column * output_step + piece.parity[1]);
        let outputs = (0..n).map(|o| {
            let value = match layer.epilogue {
                Epilogue::Store => sums[o],
                Epilogue::Gate { residual } => {
                    let x = f64::from(self.arena[at(residual, r as i32, c as i32, o)]);
                    x + sums[o] / (1.0 + (-sums[n + o]).exp())
                }
            };
            (at(layer.output, r as i32, c as i32, o), value)
        });
        outputs.collect()
    }

    /// Runs a stage in both forms and compares.
    fn check(&self, piece: &Piece, part: Part, span: Span) {
        let source = |tensor, form| on_load(&self.network, &self.layout, tensor, form);
        let stage = piece.stage(&self.layout, part, span, self.sums, source);
        // The first place in the lower right at which the stage runs.
        let place = [0, 1].map(|axis| (4..12).find(|&at| piece.runs_at(axis, at)).unwrap());
        let place = if span == Span::Image { [0, 0] } else { place };
        let [wide, narrow] = [1, 1_000_000].map(|multiprocessors| {
            let mut table = Table::default();
            table.add(vec![stage], EXTENT.batch, multiprocessors);
            assert_eq!(table.steps[0].wide, multiprocessors == 1);
            self.run(&table, place)
        });
        let name = format!("{} of {}, {part:?}, {span:?}", piece.layer.name, self.network.config);
        let same = wide.iter().zip(&narrow).all(|(a, b)| a.to_bits() == b.to_bits());
        assert!(same, "{name}: the two forms differ");
        let step = |at: usize| at / piece.pixels();
        let (rows, columns) = match span {
            Span::Pixel => (step(place[0])..step(place[0]) + 1, step(place[1])..step(place[1]) + 1),
            Span::Row => (step(place[0])..step(place[0]) + 1, 0..step(EXTENT.width)),
            Span::Image => (0..step(EXTENT.height), 0..step(EXTENT.width)),
        };
        let mut left = self.arena.clone();
        for row in rows {
            for column in columns.clone() {
                for image in 0..EXTENT.batch {
                    for (at, expected) in self.masked_conv(piece, part, [image, row, column]) {
                        let off = (f64::from(narrow[at]) - expected).abs();
                        assert!(off < 2e-5, "{name} at {image}, {row}, {column}: off by {off:e}");
                        left[at] = narrow[at];
                    }
                    // What pads a slice of sums is noise here, zeros in an engine; so is what it makes.
                    if part == Part::Rest {
                        let channels = self.network.tensors[piece.layer.output].channels;
                        let (at, _) = self.masked_conv(piece, part, [image, row, column])[0];
                        let padding = at + channels..at + channels.next_multiple_of(4);
                        left[padding.clone()].copy_from_slice(&narrow[padding]);
                    }
                }
            }
        }
        // Nothing else was written, but for the padding of sums to whole slices.
        let others = left.iter().zip(&narrow).enumerate().filter(|(at, _)| *at < self.sums);
        let touched = others.filter(|(_, (a, b))| a.to_bits() != b.to_bits() && **b != 0.0).count();
        assert_eq!(touched, 0, "{name}: {touched} floats beside the outputs were written");
    }
}

fn check_all(filters: usize, mixtures: usize, classes: usize, nonlinearity: Nonlinearity) {
    let config = ModelConfig { resnets: 1, filters, mixtures, classes, nonlinearity };
    for storage in [Storage::Ring, Storage::Full] {
        let bench = Bench::new(config, storage);
        for (layer, packed) in bench.network.layers.iter().zip(&bench.packed.layers) {
            for (&parity, &packed) in layer.parities().iter().zip(packed) {
                let piece = Piece { network: &bench.network, layer, parity, packed };
                match storage {
                    Storage::Full => bench.check(&piece, Part::Whole, Span::Image),
                    Storage::Ring => {
                        bench.check(&piece, Part::Whole, Span::Row);
                        let parts = [piece.row_part(), piece.pixel_part()].into_iter().flatten();
                        for part in parts.filter(|p| *p != Part::Whole) {
                            bench.check(&piece, part, Span::Row);
                        }
                        if let Some(part) = piece.pixel_part() {
                            bench.check(&piece, part, Span::Pixel);
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn masked_conv_with_concat_elu_and_classes() {
    let _turn = super::turn();
    check_all(13, 1, 3, Nonlinearity::ConcatElu);
}

#[test]
fn masked_conv_with_elu() {
    let _turn = super::turn();
    check_all(9, 2, 0, Nonlinearity::Elu);
}

#[test]
fn masked_conv_with_relu_and_whole_chunks() {
    let _turn = super::turn();
    check_all(16, 1, 0, Nonlinearity::Relu);
}

/// The struct of a stage is the kernels': its size is asked of them by nobody else.
#[test]
fn a_stage_is_as_long_as_in_the_kernels() {
    let _turn = super::turn();
    assert_eq!(size_of::<Stage>(), 592);
}
