"""The commands of who runs a server: serve, health, doctor, keys and audit."""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import TypeAlias

from descry.client.audit import check_audit, chosen, read_audit, since
from descry.client.commands import connect, tls_of
from descry.client.doctor import examine
from descry.client.errors import InvalidRequest
from descry.client.health import answer_a_query
from descry.client.keys import ROLES, add_key, read_key_file, remove_key
from descry.client.printing import print_json, print_table
from descry.client.serve_config import ServeConfig
from descry.client.serve_settings import add_flags, load_serve_config
from descry.client.triton_wheel import ServerError

Verbs: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
PROBE = "probe"


def add_commands(verbs: Verbs, server_flags: argparse.ArgumentParser) -> None:
    """Add this module's commands to the command line."""
    serve = verbs.add_parser("serve", help="start a server for an exported model repository")
    serve.add_argument("--config", type=Path, metavar="YAML", help="settings by section and name; flags go before")
    add_flags(serve)
    serve.set_defaults(run=run_server, usage=serve.error)

    health = verbs.add_parser("health", parents=[server_flags], help="exit 0 when the server can answer a query")
    health.set_defaults(run=tell_health)

    doctor = verbs.add_parser("doctor", parents=[server_flags], help="look for what is wrong on this machine")
    doctor.add_argument("--config", type=Path, metavar="YAML", help="of `descry serve`: look at its files, too")
    doctor.add_argument("--json", action="store_true")
    doctor.set_defaults(run=diagnose)

    _add_keys(verbs)

    audit = verbs.add_parser("audit", help="read the audit log, and verify that nobody changed it")
    audit.add_argument("file", type=Path, metavar="FILE", help="as GALLERY.audit.jsonl")
    audit.add_argument("--verify", action="store_true", help="check every line and the chain instead of printing it")
    audit.add_argument("--anchor", metavar="HASH", help="with --verify: a last hash noted earlier must be in the chain")
    audit.add_argument("--since", type=str, metavar="TIME", help="ISO 8601, or an age such as 30d, 12h, 15m")
    audit.add_argument("--who", action="append", default=[], metavar="NAME", help="of a key or user; may be repeated")
    audit.add_argument("--probes", action="store_true", help="show health checks, too")
    audit.add_argument("--json", action="store_true", help="one JSON object a line")
    audit.set_defaults(run=show_audit)


def _add_keys(verbs: Verbs) -> None:
    keys = verbs.add_parser("keys", help="add, remove and list the keys that a server asks for")
    actions = keys.add_subparsers(dest="action", required=True, metavar="ACTION")
    for name, help in (("add", "make a key and print it once"), ("remove", "refuse a key from now on")):
        action = actions.add_parser(name, help=help)
        action.add_argument("name", metavar="NAME", help="whom the key is given to")
        action.add_argument("--file", type=Path, required=True, metavar="FILE", help="keys.file of `descry serve`")
    actions.choices["add"].add_argument(
        "--role", action="append", choices=ROLES, required=True, help="what it may do; may be repeated"
    )
    shown = actions.add_parser("list", help="names, roles and dates; the keys themselves are not in the file")
    shown.add_argument("--file", type=Path, required=True, metavar="FILE")
    actions.choices["add"].set_defaults(run=make_key)
    actions.choices["remove"].set_defaults(run=drop_key)
    shown.set_defaults(run=list_keys)


def run_server(options: argparse.Namespace) -> int:
    """Run a server until it is stopped."""
    if options.config is None and not {"server.repository", "server.gallery"} <= set(vars(options)):
        options.usage("--repository and --gallery are required, or --config with a file that names them")
    from descry.client.serve import serve

    try:
        return serve(load_serve_config(options.config, options))
    except ServerError as error:
        raise InvalidRequest(str(error)) from error


def tell_health(options: argparse.Namespace) -> int:
    """Exit 0 when a query was answered; a `DescryError`, hence exit 1, otherwise."""
    started = time.monotonic()
    with connect(options) as client:
        answer_a_query(client)
    print(f"{options.url} answers queries ({(time.monotonic() - started) * 1000:.0f} ms)")
    return 0


def diagnose(options: argparse.Namespace) -> int:
    """Print what was found; 1 when anything is a problem."""
    config: ServeConfig | None = None
    if options.config is not None:
        try:
            config = load_serve_config(options.config, argparse.Namespace())
        except ServerError as error:
            raise InvalidRequest(str(error)) from error
    findings = list(examine(config, lambda: connect(options), tls_of(options)))
    if options.json:
        print_json({"findings": [vars(finding) for finding in findings]})
    else:
        print_table(("state", "what", "found"), [(each.state, each.subject, each.detail) for each in findings])
    return 1 if any(finding.state == "problem" for finding in findings) else 0


def make_key(options: argparse.Namespace) -> int:
    """Print a new key."""
    print(add_key(options.file, options.name, options.role))
    print(
        f"keep it now, {options.file} holds its hash only; the client takes it from DESCRY_KEY or --key-file",
        file=sys.stderr,
    )
    return 0


def drop_key(options: argparse.Namespace) -> int:
    """Remove a key."""
    remove_key(options.file, options.name)
    return 0


def list_keys(options: argparse.Namespace) -> int:
    """Print who holds a key."""
    rows = [(entry.name, "+".join(entry.roles), entry.created) for entry in read_key_file(options.file)]
    print_table(("name", "roles", "created"), rows)
    return 0


def show_audit(options: argparse.Namespace) -> int:
    """Print the log, or whether it is whole: 1 when it is not."""
    if options.verify:
        return _verify(options)
    if options.anchor:
        raise InvalidRequest("--anchor HASH belongs to --verify")
    start = since(options.since) if options.since else None
    entries = chosen(read_audit(options.file), start, options.who)
    shown = [entry for entry in entries if options.probes or entry.get("action") != PROBE]
    if options.json:
        for entry in shown:
            print(json.dumps(entry, ensure_ascii=False))
        return 0
    rows = []
    for entry in shown:
        who = entry.get("who", "") + (f" ({entry['user']})" if entry.get("user") else "")
        result = str(entry.get("results", entry.get("outcome", "")))
        asked = entry.get("message") or json.dumps(entry.get("asked", entry.get("fragment", "")), ensure_ascii=False)
        rows.append((str(entry["number"]), entry["time"], who, entry.get("action", ""), result, asked))
    print_table(("entry", "time", "who", "what", "results", "asked"), rows)
    return 0


def _verify(options: argparse.Namespace) -> int:
    check = check_audit(options.file, options.anchor)
    for note in check.notes:
        print(f"note: {note}", file=sys.stderr)
    for problem in check.problems:
        print(problem)
    if check.problems:
        return 1
    print(f"{check.lines} entries, none changed, none missing between; last hash {check.last_hash}")
    return 0
