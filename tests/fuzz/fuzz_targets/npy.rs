//! Any bytes as an `.npy` file, in each type that the programs read.

#![no_main]

use std::path::Path;

use fast_pixel_cnn::media::npy;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let name = Path::new("fuzz.npy");
    let _ = npy::parse::<f32>(name, data);
    let _ = npy::parse::<u8>(name, data);
});
