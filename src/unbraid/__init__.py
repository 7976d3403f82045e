"""Unbraid: should we optimise sparse autoencoders for disentanglement instead of sparsity?"""

__version__ = "0.1.0"
