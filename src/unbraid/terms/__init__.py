"""Terms: the addends of the loss, one file each, in families."""

from unbraid.config.names import attributes

__getattr__, __dir__ = attributes(__name__)
