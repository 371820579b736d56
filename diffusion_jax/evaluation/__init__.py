"""How good a model is: extractors, judges, likelihood, and the figures made with them."""
