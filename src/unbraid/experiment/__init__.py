"""Experiments and studies: what to train, as data."""
