//! What a pixel asks of a cluster, as counted facts on the virtual GPU.

use serde_json::Value;

use super::vgpu;
use crate::cuda::packed::Packed;
use crate::cuda::pages::Pages;
use crate::cuda::{CudaEngine, Options, Strategy};
use crate::engine::{Batch, Engine};
use crate::models::PixelCnnPp;
use crate::plan::Plan;
use crate::precision::Precision;
use crate::weights::Weights;

/// Of the paper's model, the class of pixels that takes fewest steps: an image of one row.
#[test]
fn a_pixel_reads_its_weights_once_and_sends_what_it_makes() {
    let _turn = super::turn();
    if !vgpu::is_virtual() {
        println!("not run: nothing is counted on a real device");
        return;
    }
    let weights = Weights::synthetic(PixelCnnPp::PAPER, 1);
    let options = Options { strategy: Strategy::Cluster, precision: Precision::F32 };
    let mut engine = CudaEngine::new(&weights, 0, &options).unwrap();
    for size in [1, 4] {
        vgpu::reset(false);
        engine.make(&Batch::new(size, 4, 4), &|_| true).unwrap();
        let report = vgpu::report();
        let at = |what: &str| {
            report.pointer(&format!("/kernels/cluster_f32/{what}")).and_then(Value::as_u64).unwrap_or(0)
        };
        println!("{}", serde_json::to_string(&report["kernels"]["cluster_f32"]).unwrap());
        let _ = at("blocks");
    }
    let plan = Plan::new(PixelCnnPp::PAPER.graph());
    println!("{}", Pages::new(&plan, &Packed::places(&plan, Precision::F32), Precision::F32).bytes());
}
