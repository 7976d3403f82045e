"""Terms that use pairs, time or perturbations."""
