"""Similarity and regularity, as pure functions."""
