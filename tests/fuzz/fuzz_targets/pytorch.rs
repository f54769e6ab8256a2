//! Files of PyTorch's: the input is the pickle of a legacy file's or of an archive's contents, beside one storage of
//! 64 bytes, or the file itself.
#![no_main]

#[path = "../../support/torch.rs"]
mod torch;

use fast_pixel_cnn::checkpoint::Checkpoint;
use libfuzzer_sys::fuzz_target;
use zip::CompressionMethod;

fuzz_target!(|input: &[u8]| {
    let Some((form, pickle)) = input.split_first() else {
        return;
    };
    let bytes = match form % 3 {
        0 => torch::zip_of(pickle, &[&[0; 64]], CompressionMethod::Stored),
        1 => {
            let keys = torch::pickle(&[&b"]("[..], &torch::string("0"), b"e"].concat());
            let storage = [&16u64.to_le_bytes()[..], &[0; 64]].concat();
            [&torch::legacy_head(true), pickle, &keys, &storage].concat()
        }
        _ => pickle.to_vec(),
    };
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("input");
    std::fs::write(&path, bytes).unwrap();
    let Ok(mut checkpoint) = Checkpoint::open(&path) else {
        return;
    };
    let _ = checkpoint.verify(&|| true);
    for variable in checkpoint.variables().to_vec() {
        if let Ok(values) = checkpoint.read_f32(&variable.name) {
            assert_eq!(values.len(), variable.shape.iter().product::<usize>());
        }
    }
});
