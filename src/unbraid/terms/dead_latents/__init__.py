"""Terms that keep latents alive."""
