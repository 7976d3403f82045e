"""Sources: where activations come from."""
