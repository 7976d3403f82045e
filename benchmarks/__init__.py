"""Side-by-side training throughput: our step against those of the other libraries."""
