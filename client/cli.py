"""The `descry` command: its flags, and what each failure means for the exit code.

Results go to stdout; progress, errors and the next command to stderr. Exit code 0: done; 1: refused or failed;
2: usage.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from descry.client import commands
from descry.client.errors import DescryError
from descry.client.search import DEFAULT_URL


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
    _add_serve(verbs)
    server = _server_flags()
    query = _query_flags()

    index = verbs.add_parser("index", parents=[server], help="add a folder of crops; continues after a stop")
    index.add_argument("folder", type=Path, metavar="FOLDER")
    index.add_argument("--labels", type=Path, metavar="CSV", help="image, and any of camera, person, time, track")
    index.add_argument("--report", type=Path, metavar="FILE", help="write what failed, and why, as JSON")
    index.add_argument("--in-flight", type=_positive, default=32, metavar="N", help="images sent at once (%(default)s)")
    index.set_defaults(run=commands.index)

    search = verbs.add_parser("search", parents=[server, query], help="rank the gallery by a description")
    search.add_argument("statements", nargs="*", metavar="ATTRIBUTE=VALUE", help="see `descry schema`")
    search.set_defaults(run=commands.search, photo=None)

    similar = verbs.add_parser("similar", parents=[server, query], help="rank the gallery: like this photo, but …")
    similar.add_argument("photo", type=Path, metavar="IMAGE")
    similar.add_argument("statements", nargs="*", metavar="ATTRIBUTE=VALUE", help="what is not as in the photo")
    similar.set_defaults(run=commands.search)

    describe = verbs.add_parser("describe", parents=[server], help="read the attributes of a photo")
    describe.add_argument("photo", type=Path, metavar="IMAGE")
    describe.add_argument("--json", action="store_true")
    describe.set_defaults(run=commands.describe)

    match = verbs.add_parser("match", parents=[server], help="measure how far a photo is from a description")
    match.add_argument("photo", type=Path, metavar="IMAGE")
    match.add_argument("statements", nargs="+", metavar="ATTRIBUTE=VALUE")
    match.add_argument("--par-weight", type=float, metavar="W")
    match.add_argument("--json", action="store_true")
    match.set_defaults(run=commands.match)

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


def _add_serve(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    serve = verbs.add_parser("serve", help="start a server for an exported model repository")
    serve.add_argument("--repository", type=Path, required=True, metavar="DIR", help="as `descry-export` leaves it")
    serve.add_argument("--gallery", type=Path, required=True, metavar="FILE", help="created where it is missing")
    serve.add_argument("--host", default="127.0.0.1", help="address to listen at (%(default)s)")
    serve.add_argument("--grpc-port", type=int, default=8001)
    serve.add_argument("--http-port", type=int, default=8000)
    serve.add_argument("--metrics-port", type=int, default=8002)
    serve.add_argument("--log", type=Path, metavar="FILE", help="write the server's log here")
    serve.set_defaults(run=commands.serve)


def _server_flags() -> argparse.ArgumentParser:
    """Flags of every command that talks to a server."""
    flags = argparse.ArgumentParser(add_help=False)
    group = flags.add_argument_group("server")
    url = os.environ.get("DESCRY_URL", DEFAULT_URL)
    group.add_argument("--url", default=url, help="host:port of gRPC; the variable DESCRY_URL, else " + DEFAULT_URL)
    group.add_argument("--timeout", type=float, default=10.0, metavar="SECONDS", help="per call (%(default)s)")
    group.add_argument("--tls-ca", type=Path, metavar="PEM", help="certificate of the server's authority; turns TLS on")
    group.add_argument("--tls-cert", type=Path, metavar="PEM", help="this client's certificate")
    group.add_argument("--tls-key", type=Path, metavar="PEM", help="this client's key")
    group.add_argument("--token", help="bearer token for a gateway; the variable DESCRY_TOKEN keeps it off the screen")
    return flags


def _query_flags() -> argparse.ArgumentParser:
    """Flags of the two commands that rank the gallery."""
    flags = argparse.ArgumentParser(add_help=False)
    flags.add_argument("-k", type=_positive, default=20, metavar="N", help="hits wanted (%(default)s)")
    flags.add_argument("--par-weight", type=float, metavar="W", help="weight of the attribute distance")
    flags.add_argument("--camera", action="append", metavar="NAME", help="keep this camera; may be repeated")
    flags.add_argument("--grid", type=Path, metavar="PICTURE", help="also draw the hits; needs --images")
    flags.add_argument("--images", type=Path, metavar="ROOT", help="the folder that was indexed")
    flags.add_argument("--json", action="store_true")
    return flags


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 on")
    return int(text)
