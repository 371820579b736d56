"""Codecs: the space in which diffusion takes place."""
