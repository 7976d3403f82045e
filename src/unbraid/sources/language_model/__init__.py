"""Activations of causal language models, read and replaced through forward hooks."""
