"""From parameters and a seed to samples."""
