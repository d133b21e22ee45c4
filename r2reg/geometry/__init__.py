"""Voxel grids and world-space transforms; numpy only."""
