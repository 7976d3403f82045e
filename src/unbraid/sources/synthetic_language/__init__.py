"""A synthetic language with known factors: grammar, documents, the factors of each word, and minimal pairs."""
