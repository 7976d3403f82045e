"""Effects: what a push along a direction changes downstream."""
