"""Measures of a registration, each a function of arrays and grids."""
