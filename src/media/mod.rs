//! Files for people: images, sounds, NumPy's arrays, figures, animations, and how files are written.
//!
//! The idea: what is read is not believed before it is checked, and what is written appears whole or not at all.

#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod animation;
#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod figure;
#[doc(hidden)]
pub mod files;
#[cfg(feature = "cli")]
mod font;
pub mod images;
#[doc(hidden)]
pub mod npy;
pub mod sounds;
