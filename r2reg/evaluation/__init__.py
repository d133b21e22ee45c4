"""What a trained network is worth, measured."""
