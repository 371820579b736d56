"""An autoencoder of emoji, 64x64 in colour: 4 x 4 pixels are one latent of four channels.

Weights of ST-LPIPS come with `pip install --no-deps stlpips_pytorch==0.0.2`; without the package
set `objective.autoencoder.perceptual=0`, which makes a step 1.7 times as fast. With it a picture
takes 0.34 s of one CPU core that other jobs kept busy, so that the 1,000 steps are 23 minutes.
They have not been run; with `train.steps=435` held-out pictures come back with 21.2 dB (95%
interval 20.9 to 21.5) and an ST-LPIPS of 0.033 (0.030 to 0.036). Outlines and skin are right, and
small areas of rare, strong colours are brown (`experiments/latents`, docs/autoencoders.md).
"""

from ml_collections import ConfigDict

from configs import default


def get_config() -> ConfigDict:
    """ST-LPIPS, a KL term and a critic beside the absolute error."""
    c = default.get_config()
    c.data.name = "emoji"
    c.data.image_size = 64
    c.objective.name = "autoencoder"
    c.objective.autoencoder.perceptual = 0.1
    c.objective.autoencoder.adversarial = 0.01
    c.model.name = "autoencoder"
    c.model.autoencoder.channels = 16
    c.model.critic.channels = 8
    c.model.critic.channel_mults = (1, 2, 4, 8)
    c.optimizer.learning_rate = 2e-3
    c.ema.decay = 0.995
    c.train.steps = 1000
    c.train.batch_size = 4
    c.train.log_every = 25
    c.train.heldout_every = 100
    c.train.sample_every = 100
    c.train.checkpoint_every = 100
    c.sample.batch_size = 32
    c.evaluate.metrics = "reconstruction"
    return c
