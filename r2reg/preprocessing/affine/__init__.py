"""The affine alignment of a pair: starts, coarse search, refinement over resolutions."""
