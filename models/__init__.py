"""Released models: one folder each, with config.json, weights and a card."""
