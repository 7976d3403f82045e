"""Terms for sparsity."""
