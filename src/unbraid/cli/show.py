"""The command `list`, which only shows."""

from unbraid import catalog
from unbraid.cli.arguments import ListFlags
from unbraid.cli.calls import Call
from unbraid.cli.resolve import packages
from unbraid.system.terminal import say


def run_list(call: Call[ListFlags]) -> int:
    """Print what can be named, one line each."""
    allowed = packages(call.options)
    groups = {"studies": catalog.experiments, "terms": catalog.term_entries, "evals": catalog.eval_entries}
    for title, find in groups.items():
        say(title)
        for name, entry in sorted(find(allowed).items()):
            say(f"  {name:<24} {entry.headline}")
    return 0
