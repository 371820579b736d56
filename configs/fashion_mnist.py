"""Fashion-MNIST, 28x28 greyscale, class-conditional: a UNet of 1.7 M parameters.

On two CPU cores: 24 min of training, 1.5 min for 1,000 samples, 2 min for the likelihood, and once
4 min for the classifier used in evaluation. One seed: the classifier, which is right on about 89%
of real images, assigns 93 to 94% of the samples to the requested class; the Frechet distance is
about 4, that of as many held-out images 3 (`experiments/fashion_mnist`). No mirroring: the shoes
of this data set point to the left.

On one GPU, train a larger UNet for longer (on an H100 beside other jobs 8,000 to 10,000 images per
second, so 20 to 27 minutes; the result has not been measured):

    python launch.py --config configs/fashion_mnist.py --workdir runs/fashion_mnist_gpu \
        --config.model.unet.patch_size=1 --config.model.unet.channels=128 \
        --config.model.unet.channel_mults="(1,2,2)" --config.model.unet.num_blocks=2 \
        --config.model.unet.attention_levels="(2,)" \
        --config.model.dtype=bfloat16 --config.train.steps=50000 --config.train.batch_size=256 \
        --config.ema.decay=0.9999 --config.optimizer.learning_rate=3e-4 \
        --config.optimizer.warmup_steps=1000 --config.sample.steps=50 \
        --config.evaluate.num_samples=10000
"""

from ml_collections import ConfigDict

from configs import default


def get_config() -> ConfigDict:
    """A small UNet over 2 x 2 patches: its levels are 14 and 7 patches wide."""
    c = default.get_config()
    c.data.name = "fashion_mnist"
    c.model.unet.patch_size = 2
    c.model.unet.channels = 48
    c.model.unet.num_blocks = 1
    c.model.unet.attention_levels = (1,)
    c.optimizer.learning_rate = 2e-3
    c.train.steps = 6500
    c.train.batch_size = 32
    c.train.log_every = 100
    c.train.heldout_every = 1000
    c.train.sample_every = 2000
    c.sample.sampler = "cld"
    c.sample.steps = 25
    c.sample.guidance_scale = 1.3
    c.sample.batch_size = 128
    c.evaluate.num_samples = 1000
    c.evaluate.likelihood.num_images = 64
    return c
