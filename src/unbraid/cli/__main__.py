"""Runs the command line: python -m unbraid.cli, or python -m unbraid."""

import os
import sys


def run() -> None:
    """Run the command line, and nothing of the working folder."""
    if not sys.flags.safe_path:
        # `python -m` puts the working folder first, where any file may lie under any name: none of it is to run.
        home = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
        sys.path[:] = [*sys.path[1:], *([] if home in sys.path[1:] else [home])]

    from unbraid.cli.main import main

    sys.exit(main())


if __name__ == "__main__":
    run()
