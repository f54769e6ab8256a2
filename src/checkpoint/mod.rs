//! Reads TensorFlow checkpoints.
