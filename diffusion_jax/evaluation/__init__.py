"""Evaluation of trained models: feature extractors, image-text models, likelihoods, metrics."""
