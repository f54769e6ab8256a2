//! What every engine holds, whatever it runs on and however: one suite for all of them.
//!
//! The idea: a way to run is a name and a function from weights to an engine. Ways of one kind of device make the same
//! bits, so each is compared with the first; and each by itself with the reference and with a float64 evaluation.
//! `conformance!` makes a test of each part for a list of ways.

use fast_pixel_cnn::engine::{Batch, Engine, Given, Method, Noise, Output};
use fast_pixel_cnn::{PixelCnnPp, Weights, media::npy};
use ndarray::{Array2, Array4, s};

use super::evaluation::forward;
use super::golden::{self, SMALL, array, bits, golden, images, labels, largest, load, relu};
use super::stacks::{self, stacks};

/// Opens an engine with weights.
pub type Open = Box<dyn Fn(&Weights) -> Box<dyn Engine>>;

/// A way to run.
pub struct Way {
    /// For messages.
    pub name: String,
    /// An engine of its kind.
    pub open: Open,
    /// Whether it takes so long that only the smallest sizes are run.
    pub slow: bool,
}

/// The ways that take part in a case: all but slow ones, of which it is the first and another one in turn.
fn in_turn(ways: &[Way], case: usize) -> impl Iterator<Item = &Way> {
    let others = ways.len().saturating_sub(1).max(1);
    let turn = move |i: usize| i == 0 || i - 1 == case % others;
    ways.iter().enumerate().filter(move |(i, way)| !way.slow || turn(*i)).map(|(_, way)| way)
}

/// The ways, and whether each is to be run by the naive method too: of slow ones, which differ only in how they cache, the
/// first is.
fn with_naive(ways: &[Way]) -> impl Iterator<Item = (&Way, bool)> {
    ways.iter().enumerate().map(|(i, way)| (way, i == 0 || !way.slow))
}

/// Makes a test of each part of the suite for the ways that an expression gives.
#[macro_export]
macro_rules! conformance {
    ($ways:expr) => {
        conformance!(
            $ways;
            logits_and_likelihoods_are_the_reference_s,
            given_the_reference_s_noise_the_images_are_the_reference_s,
            an_image_is_one_array_of_bits_whatever_makes_it,
            a_temperature_is_one_array_of_bits_too,
            given_rows_stay_and_the_rest_does_not_depend_on_how_they_came,
            rows_of_another_image_stay_and_steer_the_rest,
            unusable_batches_and_an_interruption_end_with_an_error,
            every_stack_is_what_its_layers_say_and_cached_equals_naive,
            a_start_is_the_pixel_before_the_first,
        );
    };
    ($ways:expr; $($part:ident),* $(,)?) => {
        $(
            #[test]
            fn $part() {
                common::conformance::$part(&$ways);
            }
        )*
    };
}

/// The images that labels and a seed make, from index `first_index` on, with the logits met.
fn generate(
    engine: &mut dyn Engine,
    first_index: u64,
    labels: &[u32],
    [height, width]: [usize; 2],
    method: Method,
) -> Output {
    golden::generate(engine, first_index, labels, [height, width], method)
}

/// A teacher-forced pass, naive or cached, gives the reference's logits and leaves the images as they are, and the
/// likelihoods that follow are the reference's.
pub fn logits_and_likelihoods_are_the_reference_s(ways: &[Way]) {
    for directory in golden::DIRECTORIES {
        let (images, labels) = (images(directory), labels(directory));
        let weights = load(&format!("{directory}/v2/params.ckpt"), false, relu(directory));
        let (expected, labels) = (array(&format!("{directory}/logits.npy")), labels.as_deref());
        let nll = npy::read_f32(&golden(&format!("{directory}/nll.npy"))).unwrap();
        let mut first = None;
        for Way { name, open, .. } in ways {
            let mut engine = open(&weights);
            let logits = engine.logits(images.view(), labels).unwrap();
            let off = largest(&logits, &expected);
            let nats = engine.nats(images.view(), labels).unwrap();
            let relative = nats.iter().zip(&nll).map(|(a, b)| (a / f64::from(*b) - 1.0).abs());
            let relative = relative.fold(0.0, f64::max);
            println!("{directory}, {name}: logits within {off:e}, nats within {relative:e} relative");
            assert!(off <= 1e-4 && relative <= 1e-5, "{directory}, {name}");
            let cached = Batch { method: Method::Cached, ..Batch::teacher_forced(images.view(), labels) };
            let output = engine.make(&cached, &|_| true).unwrap();
            assert!(bits(&output.images) == bits(&images), "{directory}, {name}: the images do not stay");
            assert!(
                bits(&output.logits.unwrap()) == bits(&logits),
                "{directory}, {name}: cached is not naive"
            );
            let first = first.get_or_insert_with(|| bits(&logits));
            assert!(*first == bits(&logits), "{directory}, {name}: not the bits of {}", ways[0].name);
        }
    }
}

/// Given the reference's uniform numbers, the images are the reference's.
pub fn given_the_reference_s_noise_the_images_are_the_reference_s(ways: &[Way]) {
    for directory in ["tiny", "cond"] {
        let weights = load(&format!("{directory}/v2/params.ckpt"), false, None);
        for Way { name, open, slow } in ways {
            golden::generate_as_the_reference(&mut *open(&weights), directory, Method::Cached, name);
            if !slow {
                let name = format!("{name}, naive");
                golden::generate_as_the_reference(&mut *open(&weights), directory, Method::Naive, &name);
            }
        }
    }
}

/// One array of bits for (weights, seed, index, class, temperature), whatever makes it.
pub fn an_image_is_one_array_of_bits_whatever_makes_it(ways: &[Way]) {
    let weights = Weights::synthetic(SMALL, 7);
    let labels = [3, 0, 2, 1, 3];
    for size in [[4, 4], [4, 32], [12, 20]] {
        let mut first: Option<Output> = None;
        for (Way { name, open, slow }, naive) in with_naive(ways).filter(|(way, _)| !way.slow || size[1] < 32)
        {
            let size = if *slow { size.map(|side| side.min(8)) } else { size };
            let mut engine = open(&weights);
            let all = generate(&mut *engine, 10, &labels, size, Method::Cached);
            let logits = bits(all.logits.as_ref().unwrap());
            let same = |output: &Output| {
                bits(&output.images) == bits(&all.images) && bits(output.logits.as_ref().unwrap()) == logits
            };
            if naive && (!slow || size == [4, 4]) {
                let naive = generate(&mut *engine, 10, &labels, size, Method::Naive);
                assert!(same(&naive), "{name}, {size:?}, naive");
            }
            // Alone, and elsewhere in another batch; twice, with what stands ready from before.
            let at =
                |output: &Output, i: usize| bits(&output.images.slice(s![i..i + 1, .., .., ..]).to_owned());
            for _ in 0..2 {
                let alone = generate(&mut *engine, 12, &labels[2..3], size, Method::Cached);
                assert!(at(&alone, 0) == at(&all, 2), "{name}, {size:?}, alone");
            }
            let other = generate(&mut *engine, 11, &labels[1..4], size, Method::Cached);
            assert!(at(&other, 1) == at(&all, 2), "{name}, {size:?}, other batch");
            let forward = engine.logits(all.images.view(), Some(&labels)).unwrap();
            assert!(bits(&forward) == logits, "{name}, {size:?}, forward");
            match &first {
                Some(first) if first.images.dim() == all.images.dim() => {
                    assert!(same(first), "{name}, {size:?}: not the bits of {}", ways[0].name);
                }
                _ => first = Some(all),
            }
        }
    }
}

/// Another temperature makes other images, which are one array of bits too.
pub fn a_temperature_is_one_array_of_bits_too(ways: &[Way]) {
    let weights = Weights::synthetic(SMALL, 7);
    let labels = [3, 0];
    let mut different = Vec::new();
    for temperature in [0.3, 1.0, 2.0] {
        let noise = |first_index| Noise::Philox { seed: 2702, first_index };
        let batch = Batch { labels: Some(&labels), noise: noise(10), temperature, ..Batch::new(2, 4, 4) };
        let alone = Batch { size: 1, labels: Some(&labels[1..]), noise: noise(11), ..batch };
        let mut all = Vec::new();
        for (Way { name, open, .. }, naive) in with_naive(ways) {
            let mut engine = open(&weights);
            let mut generate = |batch: &Batch| engine.make(batch, &|_| true).unwrap().images;
            let output = generate(&batch);
            let second = output.slice(s![1.., .., .., ..]).to_owned();
            assert!(bits(&generate(&alone)) == bits(&second), "{temperature}, {name}, alone");
            let at = Noise::PhiloxAt { seed: 2702, indices: &[11, 10] };
            let turned = generate(&Batch { labels: Some(&[0, 3]), noise: at, ..batch });
            let turned_back = turned.slice(s![..;-1, .., .., ..]).to_owned();
            assert!(bits(&turned_back) == bits(&output), "{temperature}, {name}, in another order");
            if naive {
                let naive = generate(&Batch { method: Method::Naive, ..batch });
                assert!(bits(&naive) == bits(&output), "{temperature}, {name}, naive");
            }
            all.push(bits(&output));
        }
        all.dedup();
        assert_eq!(all.len(), 1, "{temperature}: not the same by every way");
        different.extend(all);
    }
    different.dedup();
    assert_eq!(different.len(), 3, "a temperature makes no difference");
}

/// Given rows stay, and the rest does not depend on how they came.
pub fn given_rows_stay_and_the_rest_does_not_depend_on_how_they_came(ways: &[Way]) {
    let weights = Weights::synthetic(SMALL, 9);
    let labels = [1, 2];
    for (Way { name, open, slow }, naive) in with_naive(ways) {
        let mut engine = open(&weights);
        let [height, width] = if *slow { [4, 4] } else { [8, 12] };
        let whole = generate(&mut *engine, 0, &labels, [height, width], Method::Cached);
        for method in [Method::Cached, Method::Naive].into_iter().take(1 + usize::from(naive)) {
            for rows in 0..=height {
                // Below the given rows stands what must not be looked at.
                let mut images = whole.images.clone();
                images.slice_mut(s![.., rows.., .., ..]).fill(0.5);
                let batch = Batch {
                    labels: Some(&labels),
                    noise: Noise::Philox { seed: 2702, first_index: 0 },
                    given: Some(Given { images: images.view(), rows }),
                    method,
                    keep_logits: true,
                    ..Batch::new(2, height, width)
                };
                let output = engine.make(&batch, &|_| true).unwrap();
                assert!(bits(&output.images) == bits(&whole.images), "{name}, {method:?}, {rows} rows");
                let logits = (output.logits.unwrap(), whole.logits.as_ref().unwrap());
                assert!(bits(&logits.0) == bits(logits.1), "{name}, {method:?}, {rows} rows");
            }
        }
    }
}

/// Rows that the noise would not have made: an engine that overlooks them cannot be right by chance.
pub fn rows_of_another_image_stay_and_steer_the_rest(ways: &[Way]) {
    let weights = Weights::synthetic(SMALL, 9);
    let labels = [1, 2];
    for Way { name, open, slow } in ways {
        let [height, width] = if *slow { [8, 4] } else { [8, 12] };
        let other = Array4::from_shape_fn((2, height, width, 3), |(i, r, c, k)| {
            ((i * 101 + r * 31 + c * 57 + k * 83) % 256) as f32 / 127.5 - 1.0
        });
        let mut engine = open(&weights);
        let free = generate(&mut *engine, 0, &labels, [height, width], Method::Cached).images;
        for rows in (0..=height).filter(|rows| !slow || [1, 3, 6].contains(rows)) {
            let mut complete = |seed, method| {
                let batch = Batch {
                    labels: Some(&labels),
                    noise: Noise::Philox { seed, first_index: 0 },
                    given: Some(Given { images: other.view(), rows }),
                    method,
                    keep_logits: true,
                    ..Batch::new(2, height, width)
                };
                engine.make(&batch, &|_| true).unwrap()
            };
            let (above, below) = (s![.., ..rows, .., ..], s![.., rows.., .., ..]);
            let output = complete(2702, Method::Cached);
            assert_eq!(output.images.slice(above), other.slice(above), "{name}, {rows} rows");
            let steered = output.images.slice(below) != free.slice(below);
            assert_eq!(steered, (1..height).contains(&rows), "{name}, {rows} rows");
            let logits = output.logits.unwrap();
            if !slow {
                let naive = complete(2702, Method::Naive);
                assert!(bits(&output.images) == bits(&naive.images), "{name}, {rows} rows");
                assert!(bits(&logits) == bits(&naive.logits.unwrap()), "{name}, {rows} rows");
            }
            // Another seed changes what is made, and neither the given rows nor their logits.
            let again = complete(2703, Method::Cached);
            assert_eq!(again.images.slice(above), other.slice(above), "{name}, {rows} rows");
            assert_eq!(again.logits.unwrap().slice(above), logits.slice(above), "{name}, {rows} rows");
            let differs = again.images.slice(below) != output.images.slice(below);
            assert_eq!(differs, rows < height, "{name}, {rows} rows");
        }
    }
}

/// What cannot be made is refused, and what is stopped ends.
pub fn unusable_batches_and_an_interruption_end_with_an_error(ways: &[Way]) {
    let weights = Weights::synthetic(PixelCnnPp { classes: 0, ..SMALL }, 1);
    for (Way { name, open, .. }, naive) in with_naive(ways) {
        let mut engine = open(&weights);
        for method in [Method::Cached, Method::Naive].into_iter().take(1 + usize::from(naive)) {
            let batch = Batch { method, ..Batch::new(2, 4, 4) };
            let error = engine.make(&batch, &|rows| rows < 2).unwrap_err();
            assert_eq!(error.to_string(), "interrupted", "{name}, {method:?}");
            engine.make(&batch, &|rows| rows < 4).expect("nothing is left to stop after the last row");
            assert_eq!(engine.batch_bytes(method, 1, 1 << 31, 1 << 31), u64::MAX);
            assert_eq!(engine.batch_bytes(method, 0, 32, 32), 0);
            let huge = Batch { method, ..Batch::new(1, 1 << 31, 1 << 31) };
            let none = Batch { size: 0, ..batch };
            let narrow = Batch { height: 6, ..batch };
            let labelled = Batch { labels: Some(&[0, 0]), ..batch };
            let hot = Batch { temperature: f32::NAN, ..batch };
            for (wrong, part) in [
                (huge, "address space"),
                (none, "at least 1, found 0"),
                (narrow, "multiples of 4"),
                (labelled, "unconditional"),
                (hot, "temperature"),
            ] {
                let error = engine.make(&wrong, &|_| true).unwrap_err().to_string();
                assert!(error.contains(part), "{name}, {method:?}: {error}");
            }
        }
    }
}

/// Graphs made by hand: cached is naive, bit for bit, on free and on given rows, and near the float64 evaluation.
pub fn every_stack_is_what_its_layers_say_and_cached_equals_naive(ways: &[Way]) {
    for classes in [0, 3] {
        for (i, (name, graph)) in stacks(classes).into_iter().enumerate() {
            let weights = Weights::synthetic_for(graph, 5);
            let mut first: Vec<Output> = Vec::new();
            // Another one with classes than without.
            for way in in_turn(ways, i + usize::from(classes > 0)) {
                let all = stack(way, &weights, &format!("{name}, {classes} classes, {}", way.name), &first);
                if first.first().is_none_or(|first| first.images.dim() != all[0].images.dim()) {
                    first = all;
                }
            }
        }
    }
}

/// What a way makes of a stack: free images, a part of each given, all of each given. Naive has to be run but once,
/// where it takes long: `first` is what another way has made.
fn stack(way: &Way, weights: &Weights, place: &str, first: &[Output]) -> Vec<Output> {
    let (graph, mut engine) = (weights.graph(), (way.open)(weights));
    let side = |least: usize| least.next_multiple_of(graph.period());
    let [height, width] = if way.slow { [side(8), side(4)] } else { [side(12), side(8)] };
    let size = 3;
    let labels: Vec<u32> = (0..size as u32).map(|i| i % graph.classes.max(1) as u32).collect();
    let known = stacks::known(graph, size, height, width);
    let batch = Batch {
        labels: (graph.classes > 0).then_some(&labels[..]),
        noise: Noise::Philox { seed: 8, first_index: 0 },
        known: known.as_ref().map(|known| known.view()),
        keep_logits: true,
        ..Batch::new(size, height, width)
    };
    let mut all: Vec<Output> = Vec::new();
    // A pass for each pixel of a row that is not given takes slow ways long.
    let some = if way.slow { height - 2 } else { height / 2 };
    for rows in [0, some, height] {
        // Rows of images that were drawn otherwise.
        let other = all.first().map(|output| output.images.mapv(|x| -x));
        let given = other.as_ref().map(|other| Given { images: other.view(), rows });
        let batch = Batch { given, ..batch.reborrow() };
        let cached = engine.make(&batch, &|_| true).expect("sound batch");
        match first.get(all.len()).filter(|first| first.images.dim() == cached.images.dim()) {
            Some(first) => assert!(*first == cached, "{place}, {rows} rows given: not the bits of the first"),
            // Free images take a pass for each pixel: other parts of this suite make them.
            None if way.slow && rows == 0 => {}
            None => {
                let naive = engine.make(&Batch { method: Method::Naive, ..batch }, &|_| true);
                assert!(
                    cached == naive.expect("sound batch"),
                    "{place}, {rows} rows given: cached is not naive"
                );
            }
        }
        all.push(cached);
    }
    let starts = stacks::start(graph, size);
    near_float64(weights, place, &all[0], known.as_ref(), &starts, &labels);
    all
}

/// The logits of a batch are those of the float64 evaluation of its images.
fn near_float64(
    weights: &Weights,
    place: &str,
    made: &Output,
    known: Option<&Array4<f32>>,
    starts: &Array2<f32>,
    labels: &[u32],
) {
    let logits = made.logits.as_ref().expect("asked for");
    let (size, height, width, _) = logits.dim();
    let known = known.map_or(Array4::zeros((size, height, width, 0)), Array4::clone);
    for (image, label) in labels.iter().enumerate() {
        let of = |array: &Array4<f32>| array.slice(s![image, .., .., ..]).to_owned();
        let (pixels, known, start) = (of(&made.images), of(&known), starts.row(image));
        let exact = forward(weights, pixels.view(), known.view(), start, *label as usize);
        let found = logits.slice(s![image..image + 1, .., .., ..]);
        let off = exact.iter().zip(&found).map(|(a, b)| (a - f64::from(*b)).abs()).fold(0.0, f64::max);
        assert!(off < 2e-5, "{place}: off by {off:e}");
    }
}

/// Of the stacks that read the previous pixel: with another pixel before the first the logits are others, those of the
/// float64 evaluation that begins with it, and free, given and naive alike. Images of two shapes: wide ones, and sounds
/// that are longer than what a pixel depends on. What a network does not read is refused.
pub fn a_start_is_the_pixel_before_the_first(ways: &[Way]) {
    let all = stacks(0);
    let (read, others): (Vec<_>, Vec<_>) = all.into_iter().partition(|(_, graph)| graph.input.previous);
    assert_eq!((read.len(), others.is_empty()), (5, false), "stacks that read the previous pixel");
    for (i, (name, graph)) in read.into_iter().enumerate() {
        let weights = Weights::synthetic_for(graph, 5);
        let depends = weights.graph().receptive_rows();
        for (j, size) in [[4, 3], [depends + 5, 1]].into_iter().enumerate() {
            let mut first: Option<Output> = None;
            for way in in_turn(ways, i + j) {
                let place = format!("{name}, {size:?}, {}", way.name);
                let made = started(way, &weights, size, &place, first.is_none());
                let first = first.get_or_insert_with(|| made.clone());
                assert!(*first == made, "{place}: not the bits of the first");
            }
        }
    }
    let (name, graph) = others.into_iter().next().expect("as asserted");
    let starts = Array2::zeros((1, graph.head.values()));
    let batch = Batch { start: Some(starts.view()), ..Batch::new(1, graph.period(), graph.period()) };
    let mut engine = (ways[0].open)(&Weights::synthetic_for(graph, 5));
    let error = engine.make(&batch, &|_| true).unwrap_err().to_string();
    assert!(error.contains("start") && error.contains("reads no pixel"), "{name}: {error}");
}

/// What a way makes from a start, which it is held to as [`a_start_is_the_pixel_before_the_first`] says; by the naive
/// method too, where that is asked for.
fn started(way: &Way, weights: &Weights, [height, width]: [usize; 2], place: &str, naive: bool) -> Output {
    let mut engine = (way.open)(weights);
    let mut make = |batch: Batch| engine.make(&batch, &|_| true);
    let value = |(image, channel)| [0.31, -0.92, 0.77][(image + channel) % 3];
    let starts = Array2::from_shape_fn((2, weights.graph().head.values()), value);
    let noise = Noise::Philox { seed: 8, first_index: 0 };
    let without = Batch { noise, keep_logits: true, ..Batch::new(2, height, width) };
    let batch = Batch { start: Some(starts.view()), ..without.reborrow() };
    let made = make(batch.reborrow()).expect("sound batch");
    near_float64(weights, place, &made, None, &starts, &[0, 0]);
    let other = make(without).expect("sound batch");
    assert!(made.logits != other.logits, "{place}: a start makes no difference");
    for rows in [2, height] {
        let given = Some(Given { images: made.images.view(), rows });
        let given = Batch { given, ..batch.reborrow() };
        assert!(make(given.reborrow()).expect("sound batch") == made, "{place}: {rows} rows given");
        // Where that takes long the last two rows alone, each of which is a pass over all that it depends on.
        let rows = if way.slow { rows.max(height - 2) } else { rows };
        let given = Some(Given { images: made.images.view(), rows });
        let given = Batch { method: Method::Naive, given, ..batch.reborrow() };
        assert!(!naive || make(given).expect("sound batch") == made, "{place}: naive, {rows} rows given");
    }
    let loud = starts.mapv(|x| 2.0 * x);
    for wrong in [starts.slice(s![..1, ..]), loud.view()] {
        let error = make(Batch { start: Some(wrong), ..batch.reborrow() }).unwrap_err();
        assert!(error.to_string().contains("start"), "{place}: {error}");
    }
    // Ten minutes of sound take no more than their array, beside what a short one takes.
    let bytes = |method, rows| engine.batch_bytes(method, 1, rows, 1);
    for method in [Method::Cached, Method::Naive] {
        let more = bytes(method, 9_600_000) - bytes(method, 600);
        let each = 4 * weights.graph().head.values() as u64;
        assert_eq!(more, each * (9_600_000 - 600), "{place}, {method:?}");
    }
    made
}
