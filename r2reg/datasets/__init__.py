"""Data sets as their owners distribute them, prepared for training and benchmarks."""
