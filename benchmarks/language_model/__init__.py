"""How the embedded model was made, and what it knows of its language."""
