"""One module a contender, each importing only what its own environment has."""
