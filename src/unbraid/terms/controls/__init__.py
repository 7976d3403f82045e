"""Terms that are controls of other terms."""
