"""An autoencoder of windows of photographs, 128x128 in colour: 8 x 8 pixels are one latent.

The photographs are those of configs/photographs.py. Weights of ST-LPIPS come with
`pip install --no-deps stlpips_pytorch==0.0.2`. It has not been trained to the end; the settings are
those of configs/emoji_vae.py at four times the pixels, with a wider network, for one GPU:

    python launch.py --config configs/photographs_vae.py
"""

from ml_collections import ConfigDict

from configs import emoji_vae


def get_config() -> ConfigDict:
    """Four levels of 64 to 256 channels, and a critic of five."""
    c = emoji_vae.get_config()
    c.data.name = "photographs"
    c.data.image_size = 128
    c.data.heldout_fraction = 0.2
    c.data.flip = True
    c.model.autoencoder.channels = 64
    c.model.autoencoder.channel_mults = (1, 2, 4, 4)
    c.model.autoencoder.num_blocks = 2
    c.model.critic.channels = 32
    c.model.critic.channel_mults = (1, 2, 4, 8, 8)
    c.optimizer.learning_rate = 5e-4
    c.ema.decay = 0.999
    c.train.steps = 20_000
    c.train.batch_size = 32
    c.train.log_every = 50
    c.train.heldout_every = 1000
    c.train.sample_every = 1000
    c.train.checkpoint_every = 1000
    return c
