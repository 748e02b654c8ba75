"""`python -m descry.demo`: the search page for a running server."""

import argparse
import json
import os
import sys
import tempfile
from functools import partial
from pathlib import Path

from descry.client import DescryError, InvalidRequest
from descry.client.cli import server_flags
from descry.client.commands import connect
from descry.demo.login import allowed, read_users
from descry.demo.page import build, launch
from descry.demo.session import Site

LOOPBACK = ("127.0.0.1", "localhost", "::1")


def main(arguments: list[str] | None = None) -> int:
    """Read the flags and serve the page until it is stopped; 1 with the reason where it cannot."""
    options = _parser().parse_args(arguments)
    try:
        site = _site(options)
        if options.login is not None:
            read_users(options.login)
        elif options.host not in LOOPBACK:
            raise InvalidRequest(
                f"--host {options.host} lets others in: name who may with --login FILE (python -m descry.demo.login)"
            )
    except DescryError as error:
        print(f"descry.demo: {error}", file=sys.stderr)
        return 1
    # What visitors upload lies in a folder of this run alone, and goes with it.
    with tempfile.TemporaryDirectory(prefix="descry_demo_") as uploads:
        os.environ["GRADIO_TEMP_DIR"] = uploads
        launch(
            build(site),
            server_name=options.host,
            server_port=options.port,
            max_file_size=options.upload_limit,
            auth=partial(allowed, options.login) if options.login else None,
            inbrowser=options.open,
            ssl_certfile=options.page_certificate,
            ssl_keyfile=options.page_key,
        )
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m descry.demo", description="A search page for a Descry server.", parents=[server_flags()]
    )
    parser.add_argument("--images", type=Path, metavar="ROOT", help="the folder that was indexed, to show the crops")
    parser.add_argument("--map", type=Path, metavar="FILE", help="what python -m descry.demo.map wrote")
    parser.add_argument(
        "--evaluation", type=Path, metavar="FILE", help="what descry.trainer.evaluate --json printed of the model"
    )
    parser.add_argument(
        "--presets",
        type=Path,
        metavar="FILE",
        default=Path(__file__).with_name("presets.json"),
        help="JSON: words of a description by name",
    )
    page = parser.add_argument_group("page")
    page.add_argument("--host", default="127.0.0.1", help="address of the page; another needs --login (%(default)s)")
    page.add_argument("--port", type=int, default=7860, help="port of the page (%(default)s)")
    page.add_argument("--login", type=Path, metavar="FILE", help="who may open it: see python -m descry.demo.login")
    page.add_argument("--upload-limit", default="10mb", metavar="SIZE", help="of one file (%(default)s)")
    page.add_argument("--page-certificate", type=Path, metavar="PEM", help="serve the page by HTTPS")
    page.add_argument("--page-key", type=Path, metavar="PEM", help="the certificate's key")
    page.add_argument("--open", action="store_true", help="open it in a browser")
    return parser


def _site(options: argparse.Namespace) -> Site:
    """What the page is started with.

    Raises:
        InvalidRequest: a file or folder is not there.
    """
    for path in (options.images, options.map, options.evaluation, options.presets):
        if path is not None and not path.exists():
            raise InvalidRequest(f"{path} does not exist")
    # A wrong key file or certificate is told now, not at the first search.
    connect(options).close()
    try:
        presets = {
            str(name): tuple(map(str, words))
            for name, words in json.loads(options.presets.read_text(encoding="utf-8")).items()
        }
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise InvalidRequest(
            f"{options.presets} holds no presets ({error}): write {{'name': ['gender=female']}} as JSON"
        ) from error
    return Site(lambda user: connect(options, user), options.images, options.map, options.evaluation, presets)


if __name__ == "__main__":
    sys.exit(main())
