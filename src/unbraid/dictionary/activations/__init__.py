"""Activations: how pre-activations become codes, one file each."""
