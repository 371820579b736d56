"""Files, devices, processes, caches, and settings of JAX."""
