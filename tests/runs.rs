//! Runs on an engine that computes nothing: what reaches an engine, and what comes back.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use fast_pixel_cnn::engine::{Batch, Engine, Given, Method, Noise, Output, Watch};
use fast_pixel_cnn::generate::{Classes, Generated, Hooks, Progress, Run, RunNoise};
use fast_pixel_cnn::graph::Graph;
use fast_pixel_cnn::{Error, PixelCnnPp, Result, media::images};
use ndarray::{Array4, ArrayView4, Axis, concatenate};

/// Each image is filled with a number that tells its noise, class and given part.
struct Fake {
    graph: Graph,
    available: Option<u64>,
    sizes: Vec<usize>,
}

const BYTES_PER_IMAGE: u64 = 1 << 20;

fn fake(classes: usize) -> Fake {
    let config = PixelCnnPp { resnets: 1, classes, mixtures: 2, ..PixelCnnPp::PAPER };
    Fake { graph: config.graph(), available: None, sizes: Vec::new() }
}

impl Engine for Fake {
    fn name(&self) -> String {
        "fake".into()
    }

    fn graph(&self) -> &Graph {
        &self.graph
    }

    fn weight_bytes(&self) -> u64 {
        0
    }

    fn batch_bytes(&self, _: Method, size: usize, _: usize, _: usize) -> u64 {
        BYTES_PER_IMAGE * size as u64
    }

    fn available(&self) -> Option<u64> {
        self.available
    }

    fn nats(&mut self, images: ArrayView4<f32>, _: Option<&[u32]>) -> Result<Vec<f64>> {
        Ok(vec![1.0; images.dim().0])
    }

    fn logits(&mut self, _: ArrayView4<f32>, _: Option<&[u32]>) -> Result<Array4<f32>> {
        Err(Error::Interrupted)
    }

    fn make(&mut self, batch: &Batch, watch: Watch) -> Result<Output> {
        batch.check(&self.graph)?;
        self.sizes.push(batch.size);
        let mut images = Array4::zeros((batch.size, batch.height, batch.width, 3));
        for (b, mut image) in images.outer_iter_mut().enumerate() {
            let noise = match batch.noise {
                Noise::Philox { seed, first_index } => (seed + first_index) as f32 + b as f32,
                Noise::PhiloxAt { seed, indices } => (seed + u64::from(indices[b])) as f32,
                Noise::Given(noise) => noise[[b, 0, 0, 0]] + noise[[b, 0, 0, 2]],
            };
            let class = batch.labels.map_or(0, |labels| labels[b]);
            let given = batch.given.map_or(0.0, |g| g.images[[b, 0, 0, 0]]);
            image.fill(noise + 1000.0 * class as f32 + given);
        }
        for row in 0..batch.height {
            if !watch(row + 1) {
                return Err(Error::Interrupted);
            }
        }
        Ok(Output { images, logits: None })
    }
}

/// Seven images from index 5 in batches of three. Not a constant: its lifetime would be 'static, and
/// array views do not shorten.
fn seven<'a>() -> Run<'a> {
    Run::new(7).batch_size(3).size(4, 8).first_index(5).seed(100)
}

fn generate(engine: &mut Fake, run: &Run) -> Result<Generated> {
    run.generate_with(engine, Hooks { available: Some(1 << 30), ..Hooks::default() })
}

fn firsts(images: &Array4<f32>) -> Vec<f32> {
    images.outer_iter().map(|image| image[[0, 0, 0]]).collect()
}

#[test]
fn an_image_depends_on_its_index_however_the_run_is_split() {
    let mut engine = fake(4);
    let whole = generate(&mut engine, &seven()).unwrap();
    assert_eq!(engine.sizes, [3, 3, 1]);
    assert_eq!(whole.labels.as_deref(), Some(&[1, 2, 3, 0, 1, 2, 3][..]));
    let expected = [105, 106, 107, 108, 109, 110, 111].map(|noise| noise as f32);
    let classes = [1.0, 2.0, 3.0, 0.0, 1.0, 2.0, 3.0];
    let expected: Vec<f32> = expected.iter().zip(classes).map(|(n, c)| n + 1000.0 * c).collect();
    assert_eq!(firsts(&whole.images), expected);
    assert_eq!((whole.batch_seconds.len(), whole.interrupted), (3, false));
    for batch_size in [1, 2, 7, usize::MAX] {
        let other = generate(&mut fake(4), &Run { batch_size, ..seven() }).unwrap();
        assert_eq!(other.images, whole.images);
    }
    let tail = Run { count: 3, ..seven().first_index(9) };
    let tail = generate(&mut fake(4), &tail).unwrap();
    assert_eq!(firsts(&tail.images), expected[4..]);
    // Some of the series, in any order, and one of them twice.
    let indices = [9, 5, 11, 10, 5];
    let some = generate(&mut fake(4), &Run { count: 5, ..seven().indices(&indices) }).unwrap();
    assert_eq!(firsts(&some.images), indices.map(|i| expected[i as usize - 5]));
    assert_eq!(some.labels, Some(indices.map(|i| i % 4).into()));
    let classes = [3, 0, 0, 1, 2];
    let some = Run { count: 5, ..seven().indices(&indices).classes(&classes) };
    let some = generate(&mut fake(4), &some).unwrap();
    let as_told = indices.iter().zip(classes).map(|(i, class)| (100 + i + 1000 * class) as f32);
    assert_eq!(firsts(&some.images), as_told.collect::<Vec<_>>());
    assert_eq!(some.labels.as_deref(), Some(&classes[..]));
    let one = Run { classes: Some(Classes::One(2)), ..seven() };
    assert_eq!(generate(&mut fake(4), &one).unwrap().labels, Some(vec![2; 7]));
    assert_eq!(generate(&mut fake(0), &seven()).unwrap().labels, None);
}

#[test]
fn given_noise_and_images_are_cut_with_the_batches() {
    let ramp = |channels: usize, scale: f32| {
        Array4::from_shape_fn((7, 4, 8, channels), |(n, ..)| scale * (n + 1) as f32)
    };
    let (mixture, logistic, images) = (ramp(2, 0.01), ramp(3, 0.1), ramp(3, -0.125));
    let noise = concatenate(Axis(3), &[mixture.view(), logistic.view()]).unwrap();
    let noise = RunNoise::Given(noise.view());
    let given = Some(Given { images: images.view(), rows: 2 });
    let generated = generate(&mut fake(0), &Run { noise, given, ..seven() }).unwrap();
    for (i, value) in firsts(&generated.images).into_iter().enumerate() {
        assert!((value - (0.11 - 0.125) * (i + 1) as f32).abs() < 1e-6);
    }
    // One given image is for all, another number of them an error, as is noise for another count.
    let first = images.slice_axis(Axis(0), (0..1).into());
    let given = Given { images: first, rows: 4 };
    let generated = generate(&mut fake(0), &Run { given: Some(given), ..seven() }).unwrap();
    assert_eq!(firsts(&generated.images)[6], 111.0 - 0.125);
    let two = Given { images: images.slice_axis(Axis(0), (0..2).into()), rows: 4 };
    let wrong = [
        Run { given: Some(two), ..seven() },
        Run { given: Some(Given { rows: 5, ..given }), ..seven() },
        Run { noise, count: 6, ..seven() },
        Run { noise, count: 8, ..seven() },
        Run { noise, width: 4, ..seven() },
    ];
    for run in wrong {
        let mut engine = fake(0);
        let error = generate(&mut engine, &run).unwrap_err();
        assert!(matches!(error, Error::Argument { .. }), "{error}");
        assert!(engine.sizes.is_empty());
    }
}

#[test]
fn what_cannot_be_made_is_refused_before_anything_is() {
    let one = |class| Some(Classes::One(class));
    let wrong = [
        (4, Run { classes: one(4), ..seven() }, "class"),
        (0, Run { classes: one(0), ..seven() }, "class"),
        (0, Run { classes: Some(Classes::All), ..seven() }, "class"),
        (0, Run { count: 0, ..seven() }, "count"),
        (0, Run { batch_size: 0, ..seven() }, "batch size"),
        (0, Run { height: 6, ..seven() }, "image size"),
        (0, seven().first_index((1 << 32) - 6), "first index"),
        (0, seven().first_index(u64::MAX), "first index"),
        (0, seven().indices(&[1; 6]), "indices"),
        (4, seven().classes(&[0; 8]), "class"),
        (4, seven().classes(&[4; 7]), "class"),
        (0, seven().classes(&[0; 7]), "class"),
        (0, Run { count: 1 << 31, ..seven() }, "count"),
        (0, Run { height: 1 << 63, width: 4, ..seven() }, "count"),
    ];
    for (classes, run, name) in wrong {
        let mut engine = fake(classes);
        let message = generate(&mut engine, &run).unwrap_err().to_string();
        assert!(message.starts_with(&format!("{name}: ")), "{message}");
        assert!(engine.sizes.is_empty());
    }
    let last = seven().first_index((1 << 32) - 7);
    assert!(generate(&mut fake(0), &last).is_ok());
}

#[test]
fn a_batch_beyond_memory_is_refused_with_the_one_that_fits() {
    let refused = |batch_size, mebibytes: u64| {
        let run = Run { batch_size, count: 50, ..seven() };
        let hooks = Hooks { available: Some(mebibytes * BYTES_PER_IMAGE), ..Hooks::default() };
        match run.generate_with(&mut fake(0), hooks) {
            Err(Error::Memory { batch, fits, .. }) => Some((batch, fits)),
            Err(error) => panic!("{error}"),
            Ok(_) => None,
        }
    };
    // The results take less than one mebibyte.
    assert_eq!(refused(16, 17), None);
    assert_eq!(refused(16, 16), Some((16, 15)));
    assert_eq!(refused(1000, 18), Some((50, 17)));
    assert_eq!(refused(16, 1), Some((16, 0)));
    // Where nothing is said, it is what the engine says, which may be nothing.
    let mut engine = fake(0);
    engine.available = Some(2 * BYTES_PER_IMAGE);
    assert!(matches!(seven().generate(&mut engine), Err(Error::Memory { batch: 3, fits: 1, .. })));
    engine.available = None;
    assert!(seven().generate(&mut engine).is_ok());
}

#[test]
fn an_interrupted_run_keeps_its_finished_batches() {
    let (rows, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    let progress = |p: Progress| {
        assert_eq!(p.batch, 3);
        // In the third row of the second batch.
        if rows.fetch_add(1, Ordering::Relaxed) == 6 {
            assert_eq!((p.images, p.rows), (3, 3));
            stop.store(true, Ordering::Relaxed);
        }
    };
    let hooks = || Hooks { stop: Some(&stop), progress: Some(&progress), ..Hooks::default() };
    let generated = seven().generate_with(&mut fake(4), hooks()).unwrap();
    assert!(generated.interrupted);
    assert_eq!(generated.images.dim(), (3, 4, 8, 3));
    assert_eq!(generated.labels, Some(vec![1, 2, 3]));
    assert_eq!(generated.batch_seconds.len(), 1);
    let none = seven().generate_with(&mut fake(4), hooks()).unwrap();
    assert!(none.interrupted && none.images.is_empty() && none.batch_seconds.is_empty());
}

#[test]
fn batches_are_handed_on_as_they_are_finished_and_only_kept_where_asked() {
    let whole = generate(&mut fake(4), &seven()).unwrap();
    for keep in [true, false] {
        let (mut seen, mut values) = (Vec::new(), Vec::new());
        let finished = |first, images: ArrayView4<f32>| {
            seen.push((first, images.dim().0));
            values.extend(images.iter().copied());
            Ok(())
        };
        let run = Run { keep, ..seven() };
        let hooks = Hooks { finished: Some(Box::new(finished)), ..Hooks::default() };
        let generated = run.generate_with(&mut fake(4), hooks).unwrap();
        assert_eq!((generated.count, generated.images.dim().0), (7, if keep { 7 } else { 0 }));
        assert_eq!(generated.labels, whole.labels);
        assert_eq!(seen, [(0, 3), (3, 3), (6, 1)]);
        assert!(values.iter().eq(&whole.images));
    }
    // What cannot be written ends the run.
    let failing = |first, _: ArrayView4<f32>| if first == 3 { Err(Error::Interrupted) } else { Ok(()) };
    let mut engine = fake(0);
    let hooks = Hooks { finished: Some(Box::new(failing)), ..Hooks::default() };
    let failed = seven().generate_with(&mut engine, hooks);
    assert!(matches!(failed, Err(Error::Interrupted)) && engine.sizes.len() == 2);
}

#[test]
fn images_that_are_kept_are_counted_and_others_are_not() {
    // 4 by 8 pixels of three floats, a class and a time; and a mebibyte for an image of a batch.
    let (image, batch) = (4 * 8 * 12 + 12, 3 * BYTES_PER_IMAGE);
    let run = |keep| Run { count: 10_000, keep, ..seven() };
    let check = |run: Run, available| run.check(&fake(0), Some(available)).map(drop);
    check(run(true), batch + 10_000 * image).unwrap();
    assert!(matches!(check(run(true), batch + 10_000 * image - 1), Err(Error::Memory { .. })));
    let message = check(run(true), 9_999 * image).unwrap_err().to_string();
    assert!(message.starts_with("count: memory holds 9999 images"), "{message}");
    check(run(false), batch + 10_000 * 12).unwrap();
    assert!(check(run(false), batch + 10_000 * 12 - 1).is_err());
}

#[test]
fn a_boxed_engine_is_the_engine_in_it() {
    let mut inside = fake(4);
    inside.available = Some(5 * BYTES_PER_IMAGE);
    let mut engine: Box<dyn Engine> = Box::new(inside);
    // What an engine need not say itself is asked of this one too.
    assert_eq!(Engine::available(&engine), Some(5 * BYTES_PER_IMAGE));
    assert_eq!(Engine::nats(&mut engine, Array4::zeros((2, 4, 4, 3)).view(), None).unwrap(), [1.0, 1.0]);
    assert!(matches!(seven().batch_size(7).generate(&mut engine), Err(Error::Memory { fits: 4, .. })));
    let generated = seven().generate(&mut engine).unwrap();
    assert_eq!(generated.images, generate(&mut fake(4), &seven()).unwrap().images);
}

#[test]
fn a_picture_has_a_column_for_each_class_that_there_is_in_turn() {
    let place = tempfile::tempdir().unwrap();
    let size = |classes: usize, run: Run| {
        let file = place.path().join("grid.png");
        run.generate(&mut fake(classes)).unwrap().save_png(&file).unwrap();
        let (_, height, width, _) = images::read(&[file], None, 3).unwrap().dim();
        [height, width]
    };
    // Cells of 4x8 pixels, two apart. Of four classes, from the second on, seven images are in two rows.
    assert_eq!(size(4, seven()), [2 * 6 - 2, 4 * 10 - 2]);
    assert_eq!(size(4, seven().class(2)), [4 * 6 - 2, 2 * 10 - 2]);
    assert_eq!(size(0, seven()), [4 * 6 - 2, 2 * 10 - 2]);

    let generated = Run { keep: false, ..seven() }.generate(&mut fake(0)).unwrap();
    let file = place.path().join("none.png");
    let error = generated.save_png(&file).unwrap_err().to_string();
    assert!(error.starts_with("images: none were") && !file.exists(), "{error}");
}
