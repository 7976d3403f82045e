"""Terms: the addends of the loss, one file each, in families."""
