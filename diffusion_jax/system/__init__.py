"""Files, devices, processes, caches, and JAX settings."""
