"""Steering: MELBO and the DCTs as methods, and steering with latents."""
