//! What the whole engine holds and no public function shows: packed weights, and maps as they stand in memory.

mod teams;

use ndarray::{Array4, s};

use super::*;
use crate::graph::Activation;
use crate::models::{Nonlinearity, PixelCnnPp};
use crate::plan::layout::{Extent, Storage};

#[test]
fn packed_weights_do_not_depend_on_the_threads() {
    // With classes and transposed convolutions, on more threads than layers too.
    let config = PixelCnnPp {
        resnets: 1,
        filters: 5,
        mixtures: 2,
        channels: 3,
        classes: 3,
        nonlinearity: Nonlinearity::Elu,
    };
    let (plan, weights) = (Plan::new(config.graph()), Weights::synthetic(config, 3));
    for precision in [Precision::F32, Precision::Bf16] {
        let packed = |threads| Packed::new(&plan, &weights, precision, threads).expect("weights in memory");
        let bits = |packed: &Packed| packed.floats.as_slice().iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        let alone = bits(&packed(1));
        for threads in [2, 3, 1000] {
            assert!(bits(&packed(threads)) == alone, "{precision:?}, {threads} threads");
        }
    }
}

/// Every map through every activation that it is stored through, against the reference's lists.
#[test]
fn every_map_stored_is_the_reference_s() {
    use crate::media::npy;
    use std::path::Path;

    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/tiny");
    let checkpoint = golden.join("v2/params.ckpt");
    let weights = Weights::load(&checkpoint).expect("golden checkpoint");
    let images = npy::read_u8(&golden.join("images_u8.npy")).expect("golden images");
    let images = images.into_dimensionality().expect("four axes");
    let images: Array4<f32> = images.mapv(|p: u8| (f32::from(p) - 127.5) / 127.5);
    let (size, height, width, _) = images.dim();
    let mut engine = CpuEngine::new(&weights, &Options::default()).expect("default options");
    engine.logits(images.view(), None).expect("golden images");

    let (_, block) = engine.naive_block.as_ref().expect("kept after a pass");
    let maps = stage::Maps::new(&engine.plan, Storage::Full, Extent { batch: size, height, width });
    let named = |name: String| engine.plan.graph.maps.iter().position(|map| map.name == name);
    let lists = ["u_list", "ul_list", "down_u", "down_ul", "deconv_u", "deconv_ul"];
    let places = ["u/", "ul/", "u/down/", "ul/down/", "u/up_sample/", "ul/up_sample/"];
    let elu = |x: f32| if x > 0.0 { x } else { x.exp_m1() };
    let mut compared = 0;
    for (name, place) in lists.into_iter().zip(places) {
        // Transposed convolutions are named by their strides, 2 and then 1.
        let index = |i: usize| if name.starts_with("deconv") { [2, 1].get(i).copied() } else { Some(i) };
        let list = (0..).map_while(|i| named(format!("{place}{}", index(i)?)));
        for (i, map) in list.enumerate() {
            let expected = npy::read_f32(&golden.join(format!("act/{name}_{i}.npy"))).expect("golden");
            for read in Activation::ALL {
                let Some(grid) = maps.grid(map, read) else { continue };
                for image in 0..size {
                    for r in 0..expected.shape()[1] {
                        for c in 0..expected.shape()[2] {
                            let x = expected.slice(s![image, r, c, ..]);
                            let x: Vec<f32> = match read {
                                Activation::Identity => x.to_vec(),
                                Activation::Elu => x.iter().map(|x| elu(*x)).collect(),
                                Activation::Relu => unreachable!("this model has none"),
                                Activation::ConcatElu => {
                                    x.iter().map(|x| elu(*x)).chain(x.iter().map(|x| elu(-*x))).collect()
                                }
                            };
                            let at = grid.at(image, r as isize, c as isize);
                            let found = &block.as_slice()[at..at + grid.channels];
                            assert_eq!(found.len(), x.len());
                            let off = found.iter().zip(&x).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                            assert!(off <= 1e-5, "{name}_{i} {read:?} at ({r}, {c}): off by {off:e}");
                            compared += 1;
                        }
                    }
                }
            }
        }
    }
    assert!(compared > 1000, "only {compared} positions were compared");
}
