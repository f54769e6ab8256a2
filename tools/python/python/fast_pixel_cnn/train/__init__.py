"""Trains a PixelCNN++ in PyTorch and writes directories that the engine reads: `python -m fast_pixel_cnn.train --help`.

`model` has the network and its likelihood, `loop` the training, `data` reads images, `files` writes weights and states.
"""
