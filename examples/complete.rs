//! The lower half of an image, in eight ways: `cargo run --release --example complete [FILE.png]`.
//!
//! The idea: an image is made from the top, so the rows that are given are simply not drawn; they steer the rest.

use fast_pixel_cnn::{Device, Result, Run, Weights};
use ndarray::s;

fn main() -> Result<()> {
    let file = std::env::args().nth(1).unwrap_or("completed.png".into());
    let mut engine = Device::auto().open(&Weights::load("models/digits")?)?;

    // Any image will do, as floats in [-1, 1]: `images::read` and `images::to_floats` take one from a file.
    let image = Run::new(1).seed(1).first_index(13).class(3).generate(&mut engine)?.images;
    let rows = image.dim().1 / 2;

    // One image is given for all eight of the run; an own one for each would be `[8, height, width, 3]`.
    let completed = Run::new(8).seed(2).class(3).given(image.view(), rows).generate(&mut engine)?;
    for whole in completed.images.outer_iter() {
        assert_eq!(whole.slice(s![..rows, .., ..]), image.slice(s![0, ..rows, .., ..]), "given rows stay");
    }
    completed.save_png(&file)?;
    println!("{} completions of one upper half in {file}", completed.count);
    Ok(())
}
