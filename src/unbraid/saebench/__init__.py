"""SAEBench: its own code, run on run folders in an environment of its own."""
