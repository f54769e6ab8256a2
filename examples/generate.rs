//! Sixteen threes in one picture: `cargo run --release --example generate [FILE.png]`.

use fast_pixel_cnn::{Device, Result, Run, Weights};

fn main() -> Result<()> {
    let file = std::env::args().nth(1).unwrap_or("digits.png".into());
    let mut engine = Device::auto().open(&Weights::load("models/digits")?)?;
    let images = Run::new(16).seed(1).class(3).generate(&mut engine)?;
    images.save_png(&file)?;
    println!("{} images in {file}, made on {}", images.count, engine.name());
    Ok(())
}
