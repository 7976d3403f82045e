"""Training: the one loop, with exact resume."""
