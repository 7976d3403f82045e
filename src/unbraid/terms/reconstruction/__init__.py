"""Terms for reconstruction."""
