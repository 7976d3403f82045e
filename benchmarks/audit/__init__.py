"""An audit of the evals: which score to trust, for what, and with how many seeds."""
