//! How many bits a value of an image takes under the model: `cargo run --release --example score [FILE ...]`.
//!
//! Files are PNG, `.npy` or `.npz`, all of one size. Without any, four threes are made and scored, as threes and as
//! eights.

use fast_pixel_cnn::evaluate::{Task, evaluate};
use fast_pixel_cnn::{Device, Result, Run, Weights, media::images};

fn main() -> Result<()> {
    let files: Vec<_> = std::env::args_os().skip(1).collect();
    let weights = Weights::load("models/digits")?;
    let mut engine = Device::auto().open(&weights)?;
    let images = match files.is_empty() {
        true => images::to_bytes(Run::new(4).seed(1).class(3).generate(&mut engine)?.images.view()),
        false => images::read(&files, None, weights.graph().head.values())?,
    };
    for class in [3, 8] {
        // The model is of ten classes: each image is scored as one of the class.
        let labels = vec![class; images.dim().0];
        let scores = evaluate(&mut engine, &Task::new(images.view()).labels(&labels))?;
        for (i, bits) in scores.bits_per_dim.iter().enumerate() {
            println!("image {i} as a {class}: {bits:.4} bits per dimension");
        }
        println!("mean as a {class}: {:.4}", scores.mean_bits_per_dim());
    }
    Ok(())
}
