"""The command `steer`: finds latents by what they make a model say, pushes, and prints what happened."""

import math
import sys
from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from unbraid.cli.arguments import SteerFlags
from unbraid.cli.calls import Call
from unbraid.cli.resolve import packages, permissions
from unbraid.runs.run import Run
from unbraid.steering.output_score import Candidate
from unbraid.steering.side_effects import SideEffects
from unbraid.steering.steer import KL, Steered, find_latents, steer
from unbraid.system.progress import ProgressDisplay
from unbraid.system.terminal import clean, say

SMALLEST_CHANGE = 0.01
"""Change of a probability below which steering is said to do nothing."""
SHOWN = 10
"""Candidates shown of those ranked best by output score; as many ranked best by activation are among them or follow."""


def run_steer(call: Call[SteerFlags]) -> int:
    """Print what a model writes with and without a push."""
    options = call.options
    if bool(options.latents) == bool(options.find):
        raise ValueError(
            "name the latents to push along with --latents, or words that the model should say with --find; one of both"
        )
    run = Run.open(options.run_folder, packages(options), permissions(options))
    for note in run.notes:
        say(f"note: {note}", file=sys.stderr)
    latents, kl = options.latents, options.kl
    if options.find:
        kl = kl or KL
        ranked = candidates(run, options, kl)
        show_candidates(options.find, ranked, kl)
        latents = tuple(one.latent for one in ranked[: options.best] if math.isfinite(one.output_score))
    found = steer(
        run, latents, options.prompt, scale=options.scale, kl=kl, unit=options.unit, tokens=options.tokens,
        top=options.top, chat=options.chat, side=options.side, words=options.find,
    )  # fmt: skip
    show_steered(found)
    return 0


def candidates(run: Run, options: SteerFlags, kl: float) -> list[Candidate]:
    """Rank latents by words, with progress."""
    with ProgressDisplay() as display:
        return find_latents(
            run, options.find, options.prompt, kl=kl, tokens=options.tokens, candidates=options.candidates,
            chat=options.chat, watch=lambda done, total: display("candidates", "latents", done, total),
        )  # fmt: skip


def visible(text: str) -> str:
    """Return text of a model or a user such that it cannot steer the terminal."""
    return escape(clean(text))


def show_candidates(words: str, ranked: Sequence[Candidate], kl: float) -> None:
    """Print the candidates that are best by output score, and those that fire most."""
    console = Console()
    table = Table(
        "latent", "output score", "rank", "activation", "rank by it", "push",
        title=f"latents for {visible(words)!r} at {kl:g} nats a token", title_justify="left",
    )  # fmt: skip
    fire_most = sorted(ranked, key=lambda one: one.by_activation)[: SHOWN // 2]
    shown = [*ranked[:SHOWN], *(one for one in fire_most if one not in ranked[:SHOWN])]
    for one in shown:
        score = "out of reach" if math.isnan(one.output_score) else f"{one.output_score:+.2f}"
        table.add_row(
            str(one.latent), score, str(one.by_output), f"{one.activation:+.2f}", str(one.by_activation),
            f"{one.length:.3g}",
        )  # fmt: skip
    console.print(table)
    console.print(
        f"output score: rise of the words' log-odds as the next token, in nats; {len(ranked)} latents tried. "
        "activation: code on the words, less the usual one.\n",
        highlight=False,
    )


def show_steered(found: Steered) -> None:
    """Print the text with and without the push, what it costs, and the next tokens whose probability changes most."""
    console = Console()
    several = len(found.latents) > 1
    names = f"latents {', '.join(map(str, found.latents))}" if several else f"latent {found.latents[0]}"
    by_hand = not found.unit.startswith("a budget")
    scales = f"{', '.join(f'{scale:g}' for scale in found.scales)} times " if by_hand else ""
    console.print(
        f"{names}, {scales}{found.unit}: a push of {found.size:.3g}, {abs(found.relative):.2g} of the activations' "
        f"median norm\n",
        highlight=False,
    )
    for title, text in (("without", found.before), ("with", found.after)):
        console.print(f"[bold]{title:<8}[/bold]{visible(found.prompt)} [cyan]{visible(text)}[/cyan]", highlight=False)
    table = Table(
        "next token", "without", "with", "change", title="\nprobabilities that changed most", title_justify="left"
    )
    for token in found.expected:
        table.add_row(
            visible(token.token), f"{token.before:.3f}", f"{token.after:.3f}", f"{token.after - token.before:+.3f}"
        )
    console.print(table)
    console.print(costs(found), highlight=False)
    if max(abs(token.after - token.before) for token in found.expected) < SMALLEST_CHANGE:
        console.print(f"nothing changes by {SMALLEST_CHANGE:g}: try a larger --scale or --kl, or another latent")
    if found.note:
        console.print(f"note: {found.note}", highlight=False)


def costs(found: Steered) -> str:
    """Return what a push costs, a line each."""
    lines = [f"cost: a KL of {found.kl:.2g} nats a token along the model's own continuation"]
    if not math.isnan(found.strangeness):
        verdict = ", so the push broke the model: take a smaller one" if found.broken else ""
        lines.append(
            f"what it writes is {found.strangeness:.2g} times as perplexing to the model as its own text{verdict}"
        )
    if not math.isnan(found.departure):
        lines.append(f"pushed activations are {found.departure:.2g} times as far from the mean as usual (Mahalanobis)")
    if found.side is not None:
        lines.append(side_in_words(found.side))
    return "\n".join(lines)


def side_in_words(side: SideEffects) -> str:
    """Return side effects in a line."""
    if not side.tokens:
        return f"side effects are not known: {side.note}"
    where = f" ({side.note})" if side.note else ""
    return (
        f"side effects on {side.tokens:,} tokens of other text{where}: loss {side.loss:.3f} to "
        f"{side.pushed_loss:.3f} nats a token, KL {side.kl:.2g}"
    )
