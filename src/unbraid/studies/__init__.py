"""Studies: what is trained to be compared, as functions that return plain data."""
