"""Steering: MELBO and the DCTs as methods, and steering with latents."""

from unbraid.config.names import attributes

__getattr__, __dir__ = attributes(__name__)
