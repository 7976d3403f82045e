"""A command as it was called: its flags, the words before them, and what is left for the experiment."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar

from unbraid.cli.command_line import options_of
from unbraid.cli.commands import Command
from unbraid.system.terminal import say

O = TypeVar("O", covariant=True)  # noqa: E741 (it is the options)
HELP = ("-h", "--help", "--help-all")


@dataclass(frozen=True)
class Call(Generic[O]):
    command: str
    options: O
    words: dict[str, str] = field(default_factory=dict)
    """By placeholder: NAME, SAE."""
    rest: tuple[str, ...] = ()
    """Flags of the experiment."""

    @property
    def name(self) -> str | None:
        """The experiment or study that is named; None when none is."""
        return self.words.get("NAME")

    @property
    def prog(self) -> str:
        """The beginning of the command, for messages."""
        return " ".join(["unbraid", self.command, *([self.name] if self.name else [])])


def read(name: str, command: Command, words: Sequence[str]) -> Call[Any] | None:
    """The call; None when help was requested and has been shown. Ends with exit code 2 and a sentence for what cannot
    be read."""
    from unbraid.cli import arguments

    requested = {word for word in words if word in HELP}
    cls = getattr(arguments, command.arguments)
    call = Call[Any](name, None)
    if not requested or command.of_experiment:
        left = [word for word in words if word not in HELP]
        options, rest = options_of(cls, left, f"unbraid {name}", partly=command.of_experiment)
        before = {}
        for place in command.words:
            if rest and not rest[0].startswith("-"):
                before[place] = rest.pop(0)
        call = Call(name, options, before, tuple(rest))
    if not requested:
        return call
    length: Literal["short", "all"] = "all" if "--help-all" in requested else "short"
    show_help(call, command, cls, length)
    return None


def show_help(call: Call[Any], command: Command, cls: type, length: Literal["short", "all"]) -> None:
    """Print the command's own flags, then those of the experiment where one is named."""
    from unbraid.cli.help_text import command_help

    if call.name is None:
        say(command_help(call.command, command, cls))
        return
    from unbraid.cli.resolve import experiment_help  # first: a name that is none is an error without help before it

    about = experiment_help(call, length)
    say(command_help(call.command, command, cls))
    say(about)
