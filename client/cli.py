"""The `descry` command: its flags, and what each failure means for the exit code.

Results go to stdout; progress, errors and the next command to stderr. Exit code 0: done; 1: refused or failed;
2: usage.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from descry.client import commands, gallery_commands, operations_commands, query_commands
from descry.client.connection import DEFAULT_URL
from descry.client.errors import DescryError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    options = build_parser().parse_args(arguments)
    try:
        code = options.run(options)
        sys.stdout.flush()
        return code
    except DescryError as error:
        print(f"descry {options.command}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; the same command starts again, and `descry index` continues", file=sys.stderr)
        return 1
    except BrokenPipeError:
        # The reader has gone (`descry search … | head`): keep the interpreter from flushing into nothing at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="descry", description="Find people in a gallery of crops by description.")
    verbs = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    server = server_flags()
    operations_commands.add_commands(verbs, server)
    query_commands.add_commands(verbs, server)
    gallery_commands.add_commands(verbs, server)

    delete = verbs.add_parser("delete", parents=[server], help="remove rows from the gallery")
    delete.add_argument("ids", nargs="+", metavar="ID")
    delete.set_defaults(run=commands.delete)

    for name, help, run in [
        ("stats", "what the gallery holds", commands.stats),
        ("schema", "what may be stated", commands.schema),
    ]:
        verb = verbs.add_parser(name, parents=[server], help=help)
        verb.add_argument("--json", action="store_true")
        verb.set_defaults(run=run)
    return parser


def server_flags() -> argparse.ArgumentParser:
    """Flags of everything that talks to a server."""
    flags = argparse.ArgumentParser(add_help=False)
    group = flags.add_argument_group("server")
    url = os.environ.get("DESCRY_URL", DEFAULT_URL)
    group.add_argument("--url", default=url, help="host:port of gRPC; the variable DESCRY_URL, else " + DEFAULT_URL)
    group.add_argument("--timeout", type=float, default=10.0, metavar="SECONDS", help="per call (%(default)s)")
    group.add_argument("--tls-ca", type=Path, metavar="PEM", help="certificate of the server's authority; turns TLS on")
    group.add_argument("--tls-cert", type=Path, metavar="PEM", help="this client's certificate")
    group.add_argument("--tls-key", type=Path, metavar="PEM", help="this client's key")
    group.add_argument("--tls-name", metavar="NAME", help="in the server's certificate, where it is not the host")
    group.add_argument("--key-file", type=Path, metavar="FILE", help="this client's key; else the variable DESCRY_KEY")
    group.add_argument("--token", help="bearer token for a gateway; the variable DESCRY_TOKEN keeps it off the screen")
    return flags
