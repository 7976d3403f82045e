"""Exact references for tests and benchmarks: what penalties charge a finite code, and what true codes would show."""
