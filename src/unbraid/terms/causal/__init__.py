"""Terms about downstream effects of latents."""
