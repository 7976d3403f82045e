"""Sources: where activations come from."""

from unbraid.config.names import attributes

__getattr__, __dir__ = attributes(__name__)
