"""Statistics that several terms share."""
