"""Restoration: operators of observations, decay, and posterior sampling given an observation."""
