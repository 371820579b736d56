"""The process from data to noise: schedules, times, predictions, conditioning."""
