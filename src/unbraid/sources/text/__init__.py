"""Text as documents, tokens and windows."""
