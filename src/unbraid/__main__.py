"""Runs the command line: python -m unbraid, and torchrun -m unbraid train."""

from unbraid.cli.__main__ import run

if __name__ == "__main__":
    run()
