"""Formats: folders that other libraries read and write."""
