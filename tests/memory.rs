//! What is said about memory before a run begins: against every other size of batch, and against the arrays that
//! a run really keeps.

use fast_pixel_cnn::Nonlinearity;
use fast_pixel_cnn::cpu::{CpuEngine, Options, Split};
use fast_pixel_cnn::engine::{Engine, Method};
use fast_pixel_cnn::generate::Run;
use fast_pixel_cnn::{Error, PixelCnnPp, Weights};

fn engine(filters: usize, threads: usize, split: Option<Split>) -> CpuEngine {
    let nonlinearity = Nonlinearity::ConcatElu;
    let config = PixelCnnPp { resnets: 1, filters, mixtures: 1, channels: 3, classes: 0, nonlinearity };
    let options = Options { threads: Some(threads), split, ..Options::default() };
    CpuEngine::new(&Weights::synthetic(config, 1), &options).unwrap()
}

fn run<'a>(count: usize, batch_size: usize, [height, width]: [usize; 2], method: Method) -> Run<'a> {
    Run { method, ..Run::new(count).batch_size(batch_size).size(height, width).seed(1) }
}

/// Bytes that are kept of a run: with fewer the number of images is refused, whatever the batch.
fn kept(engine: &CpuEngine, run: &Run) -> u64 {
    let enough = |available: u64| match run.check(engine, Some(available)) {
        Err(Error::Argument { name, .. }) => name != "count",
        _ => true,
    };
    let (mut least, mut most) = (0, 1 << 50);
    while most - least > 1 {
        let middle = (least + most) / 2;
        if enough(middle) { most = middle } else { least = middle }
    }
    most
}

#[test]
fn the_batch_advised_is_the_largest_that_is_accepted() {
    use Split::{Images, Outputs};
    let mut fell = [0, 0];
    for (filters, threads, split, size, method) in [
        (4, 1, None, [8, 8], Method::Cached),
        (4, 2, None, [8, 8], Method::Cached),
        (24, 2, None, [4, 16], Method::Cached),
        (24, 3, Some(Images), [8, 12], Method::Cached),
        (12, 5, Some(Outputs), [16, 4], Method::Cached),
        (12, 16, None, [8, 8], Method::Cached),
        (24, 2, None, [64, 64], Method::Naive),
        (48, 2, None, [128, 64], Method::Naive),
    ] {
        let engine = engine(filters, threads, split);
        let needs: Vec<u64> = (0..=150).map(|n| engine.batch_bytes(method, n, size[0], size[1])).collect();
        fell[usize::from(method == Method::Naive)] += needs.windows(2).filter(|n| n[0] > n[1]).count();
        for count in [99, 163] {
            let kept = kept(&engine, &run(count, 1, size, method));
            for asked in [66, 150] {
                for left in needs[1..].iter().step_by(17).flat_map(|needed| [needed - 1, *needed]) {
                    let fits = |n: usize| needs[n] <= left && needs[count % n] <= left;
                    let largest = (1..=asked.min(count)).rev().find(|&n| fits(n)).unwrap_or(0);
                    let check = |batch| run(count, batch, size, method).check(&engine, Some(kept + left));
                    match check(asked) {
                        Ok(_) => assert_eq!(largest, asked.min(count)),
                        Err(Error::Memory { batch, needed, fits, .. }) => {
                            assert_eq!(fits, largest, "{asked} of {count} asked, {needed} of {left}");
                            assert!(needed > left && needed == needs[batch]);
                            assert!(fits == 0 || check(fits).is_ok());
                        }
                        Err(other) => panic!("{other}"),
                    }
                }
            }
        }
    }
    assert!(fell.iter().all(|&times| times > 0), "no batch needs less than a smaller one: {fell:?}");
}

#[test]
fn what_is_kept_of_a_run_is_what_its_arrays_take() {
    let mut engine = engine(4, 1, None);
    for size in [[4, 4], [8, 12], [16, 8]] {
        for keep in [true, false] {
            let run = Run { keep, ..run(24, 1, size, Method::Cached) };
            let generated = run.generate(&mut engine).unwrap();
            let images = size_of_val(generated.images.as_slice().unwrap());
            // And a class, for a model that has classes.
            let small = size_of_val(&generated.batch_seconds[..]) + run.count * size_of::<u32>();
            assert_eq!(kept(&engine, &run), (images + small) as u64, "{size:?}");
        }
    }
}
