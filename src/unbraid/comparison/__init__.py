"""Comparison: stored scores become differences, intervals and a verdict."""
