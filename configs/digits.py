"""Quick start: scikit-learn's digits."""

from ml_collections import ConfigDict

from configs import default


def get_config() -> ConfigDict:
    """Digits."""
    config = default.get_config()
    return config
