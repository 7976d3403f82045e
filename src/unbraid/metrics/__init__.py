"""Metrics: pure functions of arrays, as sklearn.metrics is for classifiers."""
