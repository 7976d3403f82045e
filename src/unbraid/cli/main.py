"""The entry point of the command line: finds the command, runs it, and turns what it raises into an exit code."""

import importlib
import os
import sys
from collections.abc import Sequence

from unbraid.cli.command_line import fail, nearest, report_bug
from unbraid.cli.commands import COMMANDS, DESCRIPTION, EPILOG, Command
from unbraid.system.notices import shown
from unbraid.system.stopping import stopping
from unbraid.system.terminal import say


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command. 0: done; 1: some runs or evals failed; 2: cannot be done; 3: a bug; 130: stopped, and
    saved."""
    words = list(sys.argv[1:] if argv is None else argv)
    if " ".join(words[:2]) in COMMANDS:  # study register
        words[:2] = [" ".join(words[:2])]
    overall = not words or words[0] in ("-h", "--help", "--version")
    command = None if overall else found(words[0])
    try:
        with shown(), stopping():
            if command is not None:
                return run(words[0], command, words[1:])
            say(version() if "--version" in words[:1] else overview(), flush=True)
            return 0
    except BrokenPipeError:  # the reader of our output has ended: head, less
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (ValueError, OSError) as error:
        say(f"error: {error}", file=sys.stderr)
        return 2
    except MemoryError as error:
        say(f"error: out of memory ({error}): ask for fewer members or latents, or smaller blocks", file=sys.stderr)
        return 2
    except KeyboardInterrupt as where:
        say(str(where) or (command.stopped if command else "stopped"), file=sys.stderr)
        return 130
    except Exception as error:
        if type(error).__name__ == "OutOfMemoryError":  # torch's, which is not imported for its name
            say(f"error: out of memory ({error}): ask for fewer members or latents", file=sys.stderr)
            return 2
        return report_bug(error, f"unbraid {' '.join(words)}")


def found(name: str) -> Command:
    """The command of this name. Ends with exit code 2 when there is none."""
    if name in COMMANDS:
        return COMMANDS[name]
    if name.startswith("-"):
        fail(f"unknown arguments {name!r}; {nearest(name, ['--help', '--version'])} See `unbraid --help`")
    own = [command for command in COMMANDS if command.startswith(f"{name} ")]
    return fail(f"there is no command {name!r}; {nearest(name, own or COMMANDS)} See `unbraid --help`")


def run(name: str, command: Command, words: Sequence[str]) -> int:
    """Read the command's flags, and call its function."""
    from unbraid.cli.calls import read

    if not sys.stderr.isatty():  # a log would have hundreds of lines of it
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    call = read(name, command, words)
    if call is None:
        return 0
    if os.environ.get("TORCHELASTIC_RUN_ID"):  # else torch is not imported for it
        from unbraid.cli.torchrun import check_command

        check_command(name)
    module, _, function = command.run.partition(":")
    return getattr(importlib.import_module(f"unbraid.cli.{module}"), function)(call)


def overview() -> str:
    """The text that `unbraid --help` shows."""
    lines = [f"    {name:<18}  {command.summary}" for name, command in COMMANDS.items()]
    head = ["usage: unbraid COMMAND … (unbraid COMMAND --help shows its flags)", "", DESCRIPTION, "", "commands"]
    return "\n".join([*head, *lines, "", "flags", "  --version   print the version", "", EPILOG])


def version() -> str:
    from unbraid import __version__

    return f"unbraid {__version__}"
