"""Fashion-MNIST at a budget for two CPU cores."""

from ml_collections import ConfigDict

from configs import default


def get_config() -> ConfigDict:
    """Fashion-MNIST."""
    c = default.get_config()
    c.data.name = "fashion_mnist"
    c.data.flip = True
    c.model.unet.channels = 32
    c.model.unet.channel_mults = (1, 2, 2)
    c.model.unet.attention_resolutions = (7,)
    return c
