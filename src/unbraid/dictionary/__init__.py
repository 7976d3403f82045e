"""The dictionary: encoder, activation and atoms, with its initialisations and constraints."""
