"""Fashion-MNIST, 28x28 and grey, by class: the digits' network with more and smaller parts.

For two CPU cores; its result there has not been measured yet. On one GPU train the UNet instead:

    python launch.py --config configs/fashion_mnist.py --workdir runs/fashion_mnist_gpu \
        --config.model.name=unet --config.model.unet.channels=128 --config.model.dtype=bfloat16 \
        --config.train.steps=50000 --config.train.batch_size=256 --config.ema.decay=0.9999 \
        --config.optimizer.learning_rate=3e-4 --config.optimizer.warmup_steps=1000
"""

from ml_collections import ConfigDict

from configs import default


def get_config() -> ConfigDict:
    """A transformer over patches of 4x4."""
    c = default.get_config()
    c.data.name = "fashion_mnist"
    c.data.flip = True
    c.model.name = "dit"
    c.model.dit.patch_size = 4
    c.model.dit.hidden_size = 256
    c.model.dit.depth = 4
    c.model.dit.num_heads = 4
    c.model.dit.unroll = 4
    c.model.unet.channel_mults = (1, 2, 2)  # 28, 14 and 7 pixels
    c.model.unet.attention_resolutions = (7,)
    c.optimizer.learning_rate = 1e-3
    c.train.steps = 2000
    c.train.batch_size = 64
    c.train.log_every = 100
    c.sample.sampler = "ancestral"
    c.sample.ancestral.variance = "small"
    c.sample.batch_size = 128
    c.evaluate.num_samples = 2000
    return c
