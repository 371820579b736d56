"""No data: pictures of a shape, for models that were trained elsewhere."""

from diffusion_jax.data.dataset import Dataset, Options, empty_dataset
from diffusion_jax.data.errors import DataError
from diffusion_jax.data.images import MODES, Images


def load_nothing(options: Options) -> Dataset:
    """The set `none`, without items, of pictures of `options.shape`, with texts.

    Raises:
        DataError: that is no shape of a picture.
    """
    shape = tuple(options.shape)
    if len(shape) != 3 or min(shape) < 1 or shape[-1] not in MODES:
        raise DataError(
            f"data.shape={shape} must be the height, width and channels (1 or 3) of the pictures "
            "of data.name='none', such as (512, 512, 3)."
        )
    return empty_dataset(options.name, Images(shape), (), captioned=True)
