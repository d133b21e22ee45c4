"""Preprocess, affine, network, refine, write."""
