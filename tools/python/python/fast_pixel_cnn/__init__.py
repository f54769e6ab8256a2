"""Fast generation for convolutional autoregressive models: PixelCNN++ and WaveNet, on CPUs and GPUs.

    import fast_pixel_cnn

    model = fast_pixel_cnn.load("weights/cifar")         # or a trainer's checkpoint, or a state_dict
    images = model.sample(16, seed=1)                    # uint8 [16, 32, 32, 3]
    nats = model.log_prob(images)                        # float64 [16]

An image is a pure function of (weights, seed, index, class, temperature) and the kind of device, bit for bit: batches,
threads and machines change nothing. `help(fast_pixel_cnn.Model)` has the rest.
"""

from ._engine import BUILT_WITH_CUDA, __version__
from .model import Classified, Model, Sounds, load

__all__ = ["BUILT_WITH_CUDA", "Classified", "Model", "Sounds", "__version__", "load"]
