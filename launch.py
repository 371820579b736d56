"""`python launch.py` in a clone is `python -m diffusion_jax`."""

from diffusion_jax.cli.main import start

if __name__ == "__main__":
    start()
