"""The objective: terms, their weights, and the step that they read."""
