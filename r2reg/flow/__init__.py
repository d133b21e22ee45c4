"""The mathematics of displacement and velocity fields."""
