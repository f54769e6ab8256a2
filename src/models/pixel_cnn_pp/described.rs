//! What a `config.json` beside a checkpoint says of a model.
//!
//! The idea: shapes tell everything but which nonlinearity is meant where channels do not double, and whether the
//! weights are averages. All the rest is in the checkpoint too, so what the file says of it must agree: it may be
//! another model's. A file in which `nr_resnet` does not stand is another program's, and says nothing.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Map, Value};

use super::{Nonlinearity, PixelCnnPp};
use crate::error::{Error, Result, printable};
use crate::models::stored::{agree, differ, read_description};

/// What the file is called.
pub(in crate::models) const FILE: &str = "config.json";

/// The file's contents, as far as they matter. All of it may be left out.
#[derive(Debug, Default, PartialEq, Deserialize)]
pub(in crate::models) struct Described {
    #[serde(rename = "nr_resnet")]
    resnets: Option<usize>,
    #[serde(rename = "nr_filters")]
    filters: Option<usize>,
    #[serde(rename = "nr_logistic_mix")]
    mixtures: Option<usize>,
    #[serde(rename = "nr_channels")]
    channels: Option<usize>,
    #[serde(rename = "num_classes")]
    classes: Option<usize>,
    /// The activation between the layers.
    pub(super) nonlinearity: Option<Nonlinearity>,
    /// Whether the weights are averages over training.
    #[serde(default)]
    pub(super) averaged: bool,
    /// Where it stands.
    #[serde(skip)]
    file: PathBuf,
}

impl Described {
    /// Reads the file, if it is meant for this.
    pub(in crate::models) fn read(file: &Path) -> Result<Described> {
        Described::parse(file.into(), &read_description(file)?)
    }

    fn parse(file: PathBuf, text: &[u8]) -> Result<Described> {
        let key = b"\"nr_resnet\"";
        if !text.windows(key.len()).any(|window| window == key) {
            return Ok(Described::default());
        }
        let described = serde_json::from_slice::<Map<String, Value>>(text)
            .and_then(|map| serde_json::from_value(Value::Object(map)));
        match described {
            Ok(described) => Ok(Described { file, ..described }),
            Err(error) => {
                let found = printable(&error.to_string());
                Err(Error::malformed(&file, "JSON", "the description of a PixelCNN++", found))
            }
        }
    }

    /// Completes what is known of the model in `checkpoint`, and refuses what contradicts it.
    pub(super) fn complete(&self, checkpoint: &Path, known: PixelCnnPp) -> Result<PixelCnnPp> {
        let numbers = [
            ("nr_resnet", self.resnets, known.resnets),
            ("nr_filters", self.filters, known.filters),
            ("nr_logistic_mix", self.mixtures, known.mixtures),
            ("nr_channels", self.channels, known.channels),
            ("num_classes", self.classes, known.classes),
        ];
        let numbers = numbers.into_iter().filter_map(|(name, said, known)| differ(name, said, Some(known)));
        let nonlinearity = self.nonlinearity.unwrap_or(known.nonlinearity);
        let width = (nonlinearity.width() != known.nonlinearity.width()).then(|| {
            let has = if known.nonlinearity.width() == 2 {
                "channels that double"
            } else {
                "channels that do not double"
            };
            (format!("nonlinearity {nonlinearity}"), has.to_string())
        });
        agree(&self.file, checkpoint, numbers.chain(width))?;
        Ok(PixelCnnPp { nonlinearity, ..known })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"{"nr_resnet": 2, "nr_filters": 6, "nr_logistic_mix": 5, "nr_channels": 1, "num_classes": 10,
        "nonlinearity": "relu", "averaged": true, "epochs": 7}"#;

    const KNOWN: PixelCnnPp = PixelCnnPp {
        resnets: 2,
        filters: 6,
        mixtures: 5,
        channels: 1,
        classes: 10,
        nonlinearity: Nonlinearity::Elu,
    };

    fn parsed(text: &str) -> Result<Described> {
        Described::parse("config.json".into(), text.as_bytes())
    }

    fn completed(text: &str) -> Result<PixelCnnPp> {
        parsed(text)?.complete(Path::new("model.pth"), KNOWN)
    }

    #[test]
    fn the_nonlinearity_is_taken_and_everything_may_be_left_out() {
        assert_eq!(completed(TEXT).unwrap(), PixelCnnPp { nonlinearity: Nonlinearity::Relu, ..KNOWN });
        assert!(parsed(TEXT).unwrap().averaged);
        let short = r#"{"nr_resnet": 2}"#;
        assert_eq!(completed(short).unwrap(), KNOWN);
        assert!(!parsed(short).unwrap().averaged);
    }

    #[test]
    fn another_program_s_file_says_nothing() {
        for text in ["", "{}", "[1, 2", r#"{"model_type": "gpt2", "nonlinearity": 7}"#, "\u{feff}# comment"] {
            assert_eq!(parsed(text).unwrap(), Described::default(), "{text}");
        }
    }

    #[test]
    fn what_contradicts_the_checkpoint_is_listed() {
        for (from, to, listed) in [
            (
                "nr_resnet\": 2",
                "nr_resnet\": 3",
                "nr_resnet 3; model.pth has nr_resnet 2: is this another model's",
            ),
            ("nr_filters\": 6", "nr_filters\": 0", "nr_filters 0; model.pth has nr_filters 6"),
            (
                "nr_logistic_mix\": 5",
                "nr_logistic_mix\": 6",
                "nr_logistic_mix 6; model.pth has nr_logistic_mix 5",
            ),
            ("nr_channels\": 1", "nr_channels\": 3", "nr_channels 3; model.pth has nr_channels 1"),
            ("num_classes\": 10", "num_classes\": 0", "num_classes 0; model.pth has num_classes 10"),
            ("relu", "concat_elu", "nonlinearity concat_elu; model.pth has channels that do not double"),
        ] {
            assert!(TEXT.contains(from));
            let error = completed(&TEXT.replacen(from, to, 1)).unwrap_err().to_string();
            assert!(error.starts_with("config.json: ") && error.contains(listed), "{error}");
        }
        let doubled = PixelCnnPp { nonlinearity: Nonlinearity::ConcatElu, ..KNOWN };
        let error = parsed(TEXT).unwrap().complete(Path::new("model.pth"), doubled).unwrap_err().to_string();
        assert!(error.contains("nonlinearity relu; model.pth has channels that double"), "{error}");
    }

    #[test]
    fn broken_files_are_one_line() {
        for (from, to, part) in [
            (": 2", ": -2", "invalid value: integer `-2`"),
            (": 6", ": \"6\"", "invalid type: string"),
            ("relu", "tanh", "unknown variant `tanh`, expected one of `concat_elu`, `elu`, `relu`"),
            ("true", "1", "invalid type: integer `1`, expected a boolean"),
            ("}", "", "EOF"),
        ] {
            assert!(TEXT.contains(from));
            let error = completed(&TEXT.replacen(from, to, 1)).unwrap_err().to_string();
            let begin = "config.json: JSON: expected the description of a PixelCNN++, found ";
            assert!(error.starts_with(begin) && error.contains(part) && !error.contains('\n'), "{error}");
        }
    }
}
