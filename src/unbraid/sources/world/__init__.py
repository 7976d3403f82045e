"""Worlds: synthetic activations with known factors and a known downstream map."""
