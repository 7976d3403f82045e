"""Runs the command line: python -m unbraid.cli."""

import os
import sys

if __name__ == "__main__":
    if not sys.flags.safe_path:
        # `python -m` puts the working folder first, where any file may lie under any name: none of it is to run.
        HOME = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
        sys.path[:] = [*sys.path[1:], *([] if HOME in sys.path[1:] else [HOME])]

    from unbraid.cli.main import main

    sys.exit(main())
