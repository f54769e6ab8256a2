//! What is summed for the next row beside the pixels of one, where clusters leave room.

use ndarray::Array4;

use super::counters::number;
use super::{device_for, turn, vgpu};
use crate::cuda::Strategy;
use crate::cuda::abi::CLUSTER;
use crate::cuda::cached::Cached;
use crate::cuda::cost::Room;
use crate::cuda::loaded::Extras;
use crate::cuda::packed::Packed;
use crate::cuda::pages::Pages;
use crate::cuda::schedule::{PixelsBy, Schedule};
use crate::cuda::stored::Stored;
use crate::engine::{Batch, Given, Output};
use crate::error::Error;
use crate::models::PixelCnnPp;
use crate::plan::Plan;
use crate::plan::layout::Extent;
use crate::plan::steps::Steps;
use crate::precision::Precision;
use crate::weights::Weights;

/// Rows of an image, beyond a whole number of periods, and its columns.
const SIZE: [usize; 2] = [10, 4];

/// Batches with 0, 3 and 4 rows given on a device that is said to have so many multiprocessors, and how many kernels ran outside of
/// graphs.
fn made(weights: &Weights, size: usize, precision: Precision, multiprocessors: usize) -> ([Output; 3], u64) {
    let mut device = device_for(precision);
    device.properties.multiprocessors = multiprocessors;
    let plan = Plan::new(weights.graph().clone());
    let packed = Packed::places(&plan, precision);
    let pages = Pages::new(&plan, &packed, precision);
    let mut stored = Stored::zeroed(&device, &packed, Some(pages)).unwrap();
    packed.fill(&plan, weights, |at, part| stored.put(&device, &packed, at, part)).unwrap();
    let (labels, [height, width]) = ([2, 1, 0], SIZE);
    let images = Array4::from_elem((size, height, width, plan.graph.head.values()), 0.25);
    let of = |rows| Batch {
        labels: (plan.graph.classes > 0).then_some(&labels[..size]),
        given: Some(Given { images: images.view(), rows }),
        keep_logits: true,
        ..Batch::new(size, height, width)
    };
    let (extent, extras) = (Extent { batch: size, height, width }, Extras::of(&of(0)));
    let mut cached =
        Cached::new(&device, &plan, &packed, &stored, extent, extras, Strategy::Cluster).unwrap();
    vgpu::reset(false);
    // Until somebody has enough of it after some rows.
    let stopped = cached.make(&device, &of(0), &|row| row < 3, None);
    assert!(matches!(stopped, Err(Error::Interrupted)));
    let outputs = [0, 3, 4].map(|rows| cached.make(&device, &of(rows), &|_| true, None).unwrap().0);
    let report = vgpu::report();
    let launches = report["launches"].as_object().unwrap().values();
    (outputs, launches.map(|launches| number(launches, "/plain")).sum())
}

#[test]
fn what_is_summed_beside_pixels_is_what_would_be_summed_behind_them() {
    let _turn = turn();
    if !vgpu::is_virtual() {
        println!("not run: nothing is counted on a real device");
        return;
    }
    for (size, precision, classes) in [(1, Precision::F32, 0), (2, Precision::Bf16, 3)] {
        let config = PixelCnnPp { resnets: 1, filters: 12, mixtures: 2, classes, ..PixelCnnPp::PAPER };
        let weights = Weights::synthetic(config, 5);
        // As many clusters as images, and room for one more.
        let [(behind, before), (beside, after)] =
            [size, size + 1].map(|clusters| made(&weights, size, precision, CLUSTER * clusters));
        println!("launches of their own: {before} where clusters leave no room, {after} where they do");
        assert!(after > before);
        assert!(behind.iter().zip(&beside).all(|(a, b)| a.images == b.images && a.logits == b.logits));
    }
}

#[test]
fn tables_have_the_same_bytes_whatever_runs_beside_pixels() {
    for resnets in [1, 5] {
        let plan = Plan::new(PixelCnnPp { resnets, ..PixelCnnPp::PAPER }.graph());
        let packed = Packed::places(&plan, Precision::F32);
        let extent = Extent { batch: 1, height: 32, width: 32 };
        let [behind, beside] = [CLUSTER, 2 * CLUSTER].map(|multiprocessors| {
            let room = Room { multiprocessors, resident: 3, spread: 2 };
            Schedule::new(&plan, &Steps::above_first(&plan), &packed, extent, room, PixelsBy::Clusters(1))
        });
        assert!(behind.upper.is_none() && beside.upper.is_some());
        assert_eq!(behind.table.bytes(), beside.table.bytes());
    }
}
