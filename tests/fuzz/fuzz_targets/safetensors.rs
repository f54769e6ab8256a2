//! safetensors files: the input as it is, and as a header of the right length before 64 bytes of values.
#![no_main]

use fast_pixel_cnn::checkpoint::Checkpoint;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let framed = [&(input.len() as u64).to_le_bytes(), input, &[0; 64]].concat();
    let directory = tempfile::tempdir().unwrap();
    for bytes in [input, &framed] {
        let path = directory.path().join("input");
        std::fs::write(&path, bytes).unwrap();
        let Ok(mut checkpoint) = Checkpoint::open(&path) else {
            continue;
        };
        for variable in checkpoint.variables().to_vec() {
            if let Ok(values) = checkpoint.read_f32(&variable.name) {
                assert_eq!(values.len(), variable.shape.iter().product::<usize>());
            }
        }
    }
});
