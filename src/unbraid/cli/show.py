"""The commands that only show: list and steer."""

import sys
from typing import TYPE_CHECKING

from unbraid import catalog
from unbraid.cli.arguments import ListFlags, SteerFlags
from unbraid.cli.calls import Call
from unbraid.cli.resolve import packages, permissions
from unbraid.system.terminal import say

if TYPE_CHECKING:  # `list` imports no torch
    from unbraid.steering.steer import Steered

SMALLEST_CHANGE = 0.01
"""Change of a probability below which steering is said to do nothing."""


def run_list(call: Call[ListFlags]) -> int:
    """Print what can be named, one line each."""
    allowed = packages(call.options)
    groups = {"studies": catalog.experiments, "terms": catalog.term_entries, "evals": catalog.eval_entries}
    for title, find in groups.items():
        say(title)
        for name, entry in sorted(find(allowed).items()):
            say(f"  {name:<24} {entry.headline}")
    return 0


def run_steer(call: Call[SteerFlags]) -> int:
    """Print what a model writes with and without a push."""
    from unbraid.runs.run import Run
    from unbraid.steering.steer import steer

    options = call.options
    run = Run.open(options.run_folder, packages(options), permissions(options))
    for note in run.notes:
        say(f"note: {note}", file=sys.stderr)
    found = steer(
        run, options.latent, options.prompt, scale=options.scale, unit=options.unit, tokens=options.tokens,
        top=options.top,
    )  # fmt: skip
    show_steered(options, found)
    return 0


def show_steered(options: SteerFlags, found: "Steered") -> None:
    """Print the text with and without the push, and the next tokens whose probability changes most."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from unbraid.system.terminal import clean

    visible = lambda text: escape(clean(text))
    console = Console()
    console.print(
        f"latent {options.latent}, {options.scale:g} times {found.unit}: a push of {found.size:.3g}, "
        f"{abs(found.relative):.2g} of the activations' median norm\n",
        highlight=False,
    )
    for title, text in (("without", found.before), ("with", found.after)):
        console.print(f"[bold]{title:<8}[/bold]{visible(options.prompt)} [cyan]{visible(text)}[/cyan]", highlight=False)
    table = Table(
        "next token", "without", "with", "change", title="\nprobabilities that changed most", title_justify="left"
    )
    for token in found.expected:
        table.add_row(
            visible(token.token), f"{token.before:.3f}", f"{token.after:.3f}", f"{token.after - token.before:+.3f}"
        )
    console.print(table)
    if max(abs(token.after - token.before) for token in found.expected) < SMALLEST_CHANGE:
        console.print(f"nothing changes by {SMALLEST_CHANGE:g}: try a larger --scale, or another latent")
    if found.note:
        console.print(f"note: {found.note}", highlight=False)
