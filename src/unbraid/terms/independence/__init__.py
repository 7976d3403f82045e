"""Terms for statistically independent latents."""
