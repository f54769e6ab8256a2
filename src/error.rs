//! What can go wrong, as one enum with fields.
//!
//! The idea: a message names the file, the place in it, what was expected and what was found, and it
//! fits on one line. An argument bears the library's own name; a program whose users know it by another
//! puts that in its place ([`Error::renamed`]). Programs print it after `error: ` and exit with status 2. A line has at most [`LINE`]
//! characters: lists end in a count ([`list`]), whatever else is long loses its middle ([`cut`]).

use std::fmt::Display;
use std::path::{Path, PathBuf};

/// The most characters of a line in which a program says what went wrong, its `error: ` included.
#[doc(hidden)]
pub const LINE: usize = 400;

/// A `Result` with this crate's [`enum@Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// Every error of the library. In `{:?}`, as a `main` that returns one prints it, it is the same line.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused memory.
    #[error("cannot allocate {bytes} bytes: {source}")]
    Allocate {
        /// How much.
        bytes: u64,
        /// The operating system's answer.
        source: std::io::Error,
    },

    /// The operating system refused to read or write.
    #[error("{}: cannot {action}: {source}", file.display())]
    Io {
        /// The file or directory.
        file: PathBuf,
        /// What was attempted, as a verb phrase: "open", "read 48 bytes at offset 0".
        action: String,
        /// The operating system's answer.
        source: std::io::Error,
    },

    /// A file's contents are not what its format promises.
    #[error("{}: {place}: expected {expected}, found {found}", file.display())]
    Malformed {
        /// The file.
        file: PathBuf,
        /// The tensor or the part of the file: "tensor model/conv2d_0/V", "index block at 1024".
        place: String,
        /// What should stand there.
        expected: String,
        /// What stands there.
        found: String,
    },

    /// A well-formed file of a kind that is not supported; `hint` says what to do about it.
    #[error("{}: {found}; {hint}", file.display())]
    Unsupported {
        /// The file.
        file: PathBuf,
        /// What it is.
        found: String,
        /// What would help.
        hint: String,
    },

    /// The weights are not those of the model that they were taken for. The message counts the problems that
    /// it has no room for.
    #[error("{}", mismatch(file, model, expected, problems))]
    Mismatch {
        /// The checkpoint or directory.
        file: PathBuf,
        /// The architecture: "PixelCNN++".
        model: &'static str,
        /// The configuration the names and shapes were compared with.
        expected: String,
        /// One entry for each missing, extra or mis-shaped variable.
        problems: Vec<String>,
    },

    /// An argument's value is out of range or does not fit the others.
    #[error("{name}: {reason}")]
    Argument {
        /// The argument, as the library calls it: "image size".
        name: String,
        /// Why it is refused: "expected 1 to 8, found 0", or a sentence.
        reason: String,
    },

    /// A file has several of what one is wanted of.
    #[error("{}: {found}; choose one with {name}", file.display())]
    Several {
        /// The file.
        file: PathBuf,
        /// How many of what, and which.
        found: String,
        /// The argument that chooses, as the library calls it: "scope".
        name: String,
    },

    /// A graph that is no causal network.
    #[error("the graph's {layer}: {fault}")]
    Graph {
        /// The layer, map or part: "layer u/1".
        layer: String,
        /// What is wrong with it.
        fault: String,
    },

    /// A batch does not fit into memory; nothing was allocated.
    #[error(
        "a batch of {batch} needs {} MiB and {} MiB are available; {}",
        needed >> 20,
        available >> 20,
        match fits { 0 => "not even a batch of 1 would fit".to_string(), n => format!("a batch of {n} would fit") }
    )]
    Memory {
        /// Images in the batch that was asked for.
        batch: usize,
        /// Bytes that batch needs.
        needed: u64,
        /// Bytes the machine has to give.
        available: u64,
        /// The largest batch that fits, 0 if none does.
        fits: usize,
    },

    /// A logit was not a number. `image` counts within the batch.
    #[error(
        "the logits of {} are not finite: the weights are unusable",
        match column {
            Some(column) => format!("image {image} at row {row}, column {column}"),
            None => format!("sound {image} at sample {row}"),
        }
    )]
    NotFinite {
        /// Image or sound, counted within the batch.
        image: usize,
        /// Row of the pixel, or the sample.
        row: usize,
        /// Column of the pixel, `None` where there is but one, as in a sound.
        column: Option<usize>,
    },

    /// The system would not start the threads.
    #[error("cannot start {threads} threads: {source}")]
    Threads {
        /// How many were to work together.
        threads: usize,
        /// The system's answer.
        source: std::io::Error,
    },

    /// A device cannot be used, or failed while it was.
    #[error("{device}: cannot {action}: {found}")]
    Device {
        /// The device: "cuda:0".
        device: String,
        /// What was attempted, as a verb phrase: "open the device", "run the kernels".
        action: String,
        /// What its driver said.
        found: String,
    },

    /// The user asked to stop.
    #[error("interrupted")]
    Interrupted,
}

impl std::fmt::Debug for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        Display::fmt(self, f)
    }
}

impl Error {
    /// An [`Error::Io`], for `map_err`.
    pub fn io(file: &Path, action: impl Into<String>) -> impl FnOnce(std::io::Error) -> Error {
        let (file, action) = (file.to_path_buf(), action.into());
        move |source| Error::Io { file, action, source }
    }

    /// An [`Error::Malformed`].
    pub fn malformed(
        file: &Path,
        place: impl Into<String>,
        expected: impl Into<String>,
        found: impl Into<String>,
    ) -> Error {
        Error::Malformed {
            file: file.to_path_buf(),
            place: place.into(),
            expected: expected.into(),
            found: found.into(),
        }
    }

    /// An [`Error::Device`].
    pub fn device(device: &str, action: impl Into<String>, found: impl Into<String>) -> Error {
        Error::Device { device: device.into(), action: action.into(), found: found.into() }
    }

    /// An [`Error::Argument`] that tells what would be accepted and what was given.
    pub fn argument(name: &str, expected: impl Display, found: impl Display) -> Error {
        Error::refused(name, format!("expected {expected}, found {found}"))
    }

    /// An [`Error::Argument`] whose reason is a sentence.
    pub fn refused(name: &str, reason: impl Into<String>) -> Error {
        Error::Argument { name: name.into(), reason: reason.into() }
    }

    /// The same error, its argument named by `rename`, which is given the library's name.
    pub fn renamed(mut self, rename: impl FnOnce(&str) -> String) -> Error {
        if let Error::Argument { name, .. } | Error::Several { name, .. } = &mut self {
            *name = rename(name);
        }
        self
    }
}

fn mismatch(file: &Path, model: &str, expected: &str, problems: &[String]) -> String {
    let head = format!("{}: not the weights of a {model} ({expected}): ", file.display());
    let room = LINE.saturating_sub("error: ".len() + head.chars().count());
    head + &list(problems, "; ", room)
}

/// `items` with `separator` between them, in at most `room` characters: "a; b; and 165 more". Where not even
/// the first has room, it is [`cut`].
#[doc(hidden)]
pub fn list<S: AsRef<str>>(items: &[S], separator: &str, room: usize) -> String {
    let length = |text: &str| text.chars().count();
    let rest = |shown: usize| format!("{separator}and {} more", items.len() - shown);
    let lengths = items
        .iter()
        .enumerate()
        .map(|(i, item)| length(item.as_ref()) + if i > 0 { length(separator) } else { 0 });
    let ends: Vec<usize> = lengths
        .scan(0, |end, length| {
            *end += length;
            Some(*end)
        })
        .collect();
    let fits =
        |shown: usize| ends[shown - 1] + if shown < items.len() { length(&rest(shown)) } else { 0 } <= room;
    let joined = |shown: usize| items[..shown].iter().map(AsRef::as_ref).collect::<Vec<_>>().join(separator);
    match (0..=items.len()).rev().find(|&shown| shown == 0 || fits(shown)) {
        Some(0) if items.len() > 1 => {
            cut(items[0].as_ref(), room.saturating_sub(length(&rest(1)))) + &rest(1)
        }
        Some(0) => items.first().map_or_else(String::new, |item| cut(item.as_ref(), room)),
        Some(shown) if shown < items.len() => joined(shown) + &rest(shown),
        _ => joined(items.len()),
    }
}

/// `text` in at most `room` characters (but no fewer than 20): where it is longer a part before the middle is
/// left out, since a message begins with the file, which may have a long path, and ends with what was found.
#[doc(hidden)]
pub fn cut(text: &str, room: usize) -> String {
    let (length, room) = (text.chars().count(), room.max(20));
    if length <= room {
        return text.into();
    }
    let head = room / 4;
    let tail = room - head - "...".len();
    text.chars().take(head).chain("...".chars()).chain(text.chars().skip(length - tail)).collect()
}

/// Text from a file, fit for a line of a message.
pub(crate) fn printable(text: &str) -> String {
    let printable = |c: char| {
        if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }
    };
    let line: String = text.chars().take(200).map(printable).collect();
    if line.len() < text.len() { line + "..." } else { line }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_end_in_a_count_where_room_ends() {
        let items = ["first", "second", "third"];
        assert_eq!(list(&items, ", ", 20), "first, second, third");
        assert_eq!(list(&items, ", ", 19), "first, and 2 more");
        assert_eq!(list(&items, "; ", 17), "first; and 2 more");
        assert_eq!(list(&["one", "two", "3", "4"], ", ", 20), "one, two, 3, 4");
        assert_eq!(list::<&str>(&[], ", ", 9), "");
        let long = "x".repeat(1000);
        assert_eq!(list(&[&long], ", ", 100), cut(&long, 100));
        assert_eq!(list(&[&long, "y"], ", ", 100), cut(&long, 88) + ", and 1 more");
        // At every room, whatever is not shown is counted.
        let items: Vec<String> = (0..150).map(|i| format!("name_{i}")).collect();
        for room in 40..1500 {
            let text = list(&items, "; ", room);
            let shown = text.matches("name_").count();
            assert!(text.len() <= room, "{room}: {text}");
            assert_eq!(text.ends_with(&format!("; and {} more", 150 - shown)), shown < 150, "{room}: {text}");
        }
    }

    #[test]
    fn long_text_loses_its_middle() {
        assert_eq!(cut("short", 20), "short");
        assert_eq!(cut(&("a".repeat(30) + &"e".repeat(30)), 20), format!("aaaaa...{}", "e".repeat(12)));
        assert_eq!(cut(&"é".repeat(401), LINE).chars().count(), LINE);
    }

    #[test]
    fn a_mismatch_fits_a_line() {
        let problems: Vec<String> = (0..5000).map(|i| format!("model/conv2d_{i}/V is missing")).collect();
        let file = "directory/".repeat(10).into();
        let expected = "a model".into();
        let line = format!("error: {}", Error::Mismatch { file, model: "network", expected, problems });
        assert!((LINE - 40..=LINE).contains(&line.len()), "{line}");
        assert!(line.contains("(a model): model/conv2d_0/V is missing; model/conv2d_1/V is"), "{line}");
        assert!(line.ends_with(" more"), "{line}");
    }
}
