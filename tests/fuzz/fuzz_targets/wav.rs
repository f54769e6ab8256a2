//! Any bytes as a WAV file, at its own rate and at another.

#![no_main]

use std::path::Path;

use fast_pixel_cnn::media::sounds;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    for rate in [None, Some(16_000)] {
        let _ = sounds::parse(Path::new("fuzz.wav"), data, rate);
    }
});
