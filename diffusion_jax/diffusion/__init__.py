"""The diffusion process: schedules, times, prediction types, conditioning."""
