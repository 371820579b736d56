"""Stable Diffusion v1's published files: a table of names per format, read and written by it."""
