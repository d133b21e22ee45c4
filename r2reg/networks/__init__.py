"""Keras layers over `flow` and the networks built from them."""
