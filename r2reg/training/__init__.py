"""Pairs to batches, synthesis from label maps, the training loop and its checkpoints."""
