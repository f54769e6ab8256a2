"""Trains a PixelCNN++ in PyTorch, for the engine to generate from: `python -m fast_pixel_cnn.train --help`.

`model` has the network and its likelihood, `loop` the training; `data` reads images, `files` writes weights.
"""
