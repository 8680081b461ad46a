"""The command `llamora-server`: its parser, one line a command."""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from llamora.cli import backup, copy, doctor, restore, rotate, serve, verify
from llamora.cli.unlocking import explain_errors
from llamora.errors import Problem
from llamora.messages import sentence
from llamora.settings import Settings, SettingsError, load_settings, overwrite_freed_memory
from llamora.vault.memory import disable_core_dumps


class Command(NamedTuple):
    """A command: its name, its line of help, and the two functions of its module."""

    name: str
    help: str
    add_options: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace, Settings], int]


COMMANDS = tuple(
    Command(name, help_text, module.add_options, module.run)
    for name, help_text, module in (
        ("dev", "serve the journal; what to develop with has --reload", serve),
        ("prod", "serve the journal to a household", serve),
        ("backup", "put everything of one writer into one sealed file", backup),
        ("verify", "open everything in a backup and change nothing", verify),
        ("restore", "put a backup back, into this journal or an empty folder", restore),
        ("copy", "copy the whole database as it is, sealed, while the server runs", copy),
        ("rotate", "seal everything of one writer under new keys and erase the old ones", rotate),
        ("doctor", "examine the journal, and with --user open every record of a writer", doctor),
    )
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return 0 after a clean stop, 2 when it cannot start.

    The reason is printed in one sentence. Without arguments it is `dev`, and a browser opens.
    """
    is_program = arguments is None
    arguments = sys.argv[1:] if arguments is None else arguments
    options = _build_parser().parse_args(arguments or ["dev"])
    if is_program and options.run is serve.run:
        overwrite_freed_memory()
    options.opens_browser = not arguments
    try:
        # Others reach such a server: whoever runs it lets them in.
        defaults = {"server": {"registration": False}} if options.command == "prod" else {}
        settings = load_settings(overrides=_overrides(options), defaults=defaults)
        serve.configure_logging(settings.log_level)
        disable_core_dumps()
        with explain_errors():
            return options.run(options, settings)
    except (Problem, SettingsError) as error:
        text = sentence(error) if isinstance(error, Problem) else error
        print(f"llamora-server: {text}", file=sys.stderr)
        return 2


def _build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="llamora-server",
        description="A private journal on your own machine. Without a command it is `dev`, and "
        "opens your browser.",
    )
    subcommands = parser.add_subparsers(dest="command", metavar="COMMAND")
    for command in COMMANDS:
        subparser = subcommands.add_parser(
            command.name, help=command.help, description=command.help
        )
        command.add_options(subparser)
        subparser.set_defaults(run=command.run)
    return parser


def _overrides(options: argparse.Namespace) -> Mapping[str, Any]:
    values = {name: getattr(options, name, None) for name in ("host", "port", "workers")}
    return {"server": {name: value for name, value in values.items() if value is not None}}


if __name__ == "__main__":
    sys.exit(main())
