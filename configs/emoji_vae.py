"""An autoencoder of emoji, 64x64 in colour: 4 x 4 pixels are one latent of four channels.

Weights of ST-LPIPS come with `pip install --no-deps stlpips_pytorch==0.0.2`; without the package
set `objective.autoencoder.perceptual=0`. A step took 3 to 10 s on two CPU cores that other jobs
shared. It has not been trained to the end: after 223 of the 500 steps held-out pictures came back
with 20.6 dB (95% interval 20.3 to 21.0) and an ST-LPIPS of 0.039 (0.034 to 0.043); outlines were
right, and plain areas had a faint pattern. docs/autoencoders.md has more on it.
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
    c.train.steps = 500
    c.train.batch_size = 8
    c.train.log_every = 25
    c.train.heldout_every = 100
    c.train.sample_every = 100
    c.train.checkpoint_every = 100
    c.sample.batch_size = 32
    c.evaluate.metrics = "reconstruction"
    return c
