"""Terms about the angles between atoms."""
