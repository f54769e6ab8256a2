//! What the reference's `wavenet_params.json` says of a model.
//!
//! The idea: dilations and sample rate stand nowhere else. All the rest is in the checkpoint too, so what the file says
//! of it must agree: it may be another model's.

use std::path::Path;

use serde::Deserialize;

use super::WaveNet;
use crate::error::{Error, Result, printable};
use crate::models::stored::{agree, differ, read_description};

/// What the file is called.
pub(in crate::models) const FILE: &str = "wavenet_params.json";

/// The file's contents, as far as they matter. All but two may be left out.
#[derive(Debug, Deserialize)]
pub(super) struct Params {
    dilations: Vec<usize>,
    sample_rate: u32,
    filter_width: Option<usize>,
    initial_filter_width: Option<usize>,
    residual_channels: Option<usize>,
    dilation_channels: Option<usize>,
    skip_channels: Option<usize>,
    quantization_channels: Option<usize>,
    scalar_input: Option<bool>,
    use_biases: Option<bool>,
}

impl Params {
    /// Reads the file.
    pub(super) fn read(file: &Path) -> Result<Params> {
        Params::parse(file, &read_description(file)?)
    }

    fn parse(file: &Path, text: &[u8]) -> Result<Params> {
        serde_json::from_slice(text).map_err(|error| {
            Error::malformed(file, "JSON", "the description of a WaveNet", printable(&error.to_string()))
        })
    }

    /// Completes what is known of the model in `checkpoint`, and refuses what contradicts it.
    pub(super) fn complete(self, file: &Path, checkpoint: &Path, known: WaveNet) -> Result<WaveNet> {
        let width = known.scalar_input.then_some(known.initial_filter_width);
        let numbers = [
            ("number of dilations", Some(self.dilations.len()), Some(known.dilations.len())),
            ("filter_width", self.filter_width, Some(known.filter_width)),
            ("initial_filter_width", self.initial_filter_width, width),
            ("residual_channels", self.residual_channels, Some(known.residual_channels)),
            ("dilation_channels", self.dilation_channels, Some(known.dilation_channels)),
            ("skip_channels", self.skip_channels, Some(known.skip_channels)),
            ("quantization_channels", self.quantization_channels, Some(known.quantization_channels)),
        ];
        let flags = [
            ("scalar_input", self.scalar_input, Some(known.scalar_input)),
            ("use_biases", self.use_biases, Some(known.use_biases)),
        ];
        let numbers = numbers.iter().filter_map(|&(name, said, known)| differ(name, said, known));
        let flags = flags.iter().filter_map(|&(name, said, known)| differ(name, said, known));
        agree(file, checkpoint, numbers.chain(flags))?;
        let complete = WaveNet {
            dilations: self.dilations,
            sample_rate: self.sample_rate,
            initial_filter_width: self.initial_filter_width.unwrap_or(known.initial_filter_width),
            ..known
        };
        complete.check_limits(file)?;
        Ok(complete)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"{"filter_width": 2, "sample_rate": 8000, "dilations": [1, 2, 4], "residual_channels": 3,
        "dilation_channels": 4, "quantization_channels": 16, "skip_channels": 5, "use_biases": true,
        "scalar_input": false, "initial_filter_width": 32}"#;

    fn known() -> WaveNet {
        WaveNet {
            dilations: vec![1, 2, 4],
            residual_channels: 3,
            dilation_channels: 4,
            skip_channels: 5,
            quantization_channels: 16,
            ..WaveNet::default()
        }
    }

    fn completed(text: &str, known: WaveNet) -> Result<WaveNet> {
        Params::parse(Path::new("p.json"), text.as_bytes())?.complete(
            Path::new("p.json"),
            Path::new("ckpt"),
            known,
        )
    }

    fn refusal(text: &str) -> String {
        let error = completed(text, known()).unwrap_err().to_string();
        assert!(error.starts_with("p.json: ") && error.len() < 400 && !error.contains('\n'), "{error}");
        error
    }

    #[test]
    fn dilations_and_rate_are_taken_and_the_rest_may_be_left_out() {
        let found = completed(TEXT, WaveNet { dilations: vec![1; 3], ..known() }).unwrap();
        assert_eq!(found, WaveNet { sample_rate: 8000, ..known() });
        let found = completed(r#"{"dilations": [7, 1, 9], "sample_rate": 1, "x": [{}]}"#, known()).unwrap();
        assert_eq!(found, WaveNet { dilations: vec![7, 1, 9], sample_rate: 1, ..known() });
        // Where samples are amplitudes the width is the checkpoint's, else only the file has it.
        let text = r#"{"dilations": [1, 2, 4], "sample_rate": 1, "initial_filter_width": 9}"#;
        assert_eq!(completed(text, known()).unwrap().initial_filter_width, 9);
        let scalar = WaveNet { scalar_input: true, ..known() };
        let error = completed(text, scalar).unwrap_err().to_string();
        assert!(error.contains("initial_filter_width 9; ckpt has initial_filter_width 32"), "{error}");
    }

    #[test]
    fn what_contradicts_the_checkpoint_is_listed() {
        for (from, to, listed) in [
            ("[1, 2, 4]", "[1, 2]", "number of dilations 2; ckpt has number of dilations 3"),
            ("\"filter_width\": 2", "\"filter_width\": 3", "filter_width 3; ckpt has filter_width 2"),
            ("\"use_biases\": true", "\"use_biases\": false", "use_biases false; ckpt has use_biases true"),
            ("\"scalar_input\": false", "\"scalar_input\": true", "scalar_input true; ckpt has scalar_input"),
            ("channels\": 3", "channels\": 0", "residual_channels 0; ckpt has residual_channels 3"),
        ] {
            assert!(TEXT.contains(from));
            let error = refusal(&TEXT.replacen(from, to, 1));
            assert!(error.contains(listed), "{error}");
        }
        let all = TEXT.replace(": 3", ": 30").replace(": 4", ": 40").replace(": 5", ": 50");
        let error = refusal(&all);
        let listed =
            "residual_channels 30, dilation_channels 40, skip_channels 50; ckpt has residual_channels 3, ";
        assert!(error.contains(listed), "{error}");
    }

    #[test]
    fn absurd_numbers_and_broken_files_are_one_line() {
        for (from, to, part) in [
            ("[1, 2, 4]", "[1, 0, 4]", "a dilation is 0; 1 to 1048576"),
            ("[1, 2, 4]", "[1, 2, 1048577]", "a dilation is 1048577"),
            ("[1, 2, 4]", "[1, 2, -4]", "invalid value: integer `-4`"),
            ("[1, 2, 4]", "[1, 2, 4.5]", "invalid type: floating point"),
            ("[1, 2, 4]", "7", "invalid type: integer `7`"),
            ("8000", "0", "sample_rate is 0"),
            ("8000", "4294967296", "invalid value: integer `4294967296`"),
            ("32", "0", "initial_filter_width is 0; 1 to 10000"),
            ("\"dilations\"", "\"dilation\"", "missing field `dilations`"),
            ("\"sample_rate\"", "\"rate\"", "missing field `sample_rate`"),
            ("}", "", "EOF"),
            ("2,", "2, \"dilations\": [1],", "duplicate field"),
        ] {
            assert!(TEXT.contains(from));
            let error = refusal(&TEXT.replacen(from, to, 1));
            assert!(error.contains(part), "{error}");
        }
        for text in ["", "[]", "null", "{}", "\u{feff}{}", &"[".repeat(100_000), &"{\"a\":".repeat(1000)] {
            refusal(text);
        }
    }
}
