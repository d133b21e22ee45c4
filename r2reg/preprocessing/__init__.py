"""One pipeline for training and inference: intensities, the network's grid, affine initialisation."""
