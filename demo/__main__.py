"""`python -m descry.demo`: the search page for a running server."""

import argparse
import os
from pathlib import Path

from descry.demo.app import launch


def main() -> None:
    """Read the flags and serve the page until it is stopped."""
    parser = argparse.ArgumentParser(prog="python -m descry.demo", description="A search page for a Descry server.")
    url = os.environ.get("DESCRY_URL", "127.0.0.1:8001")
    parser.add_argument("--url", default=url, help="the server's gRPC address; or DESCRY_URL (%(default)s)")
    parser.add_argument("--images", type=Path, metavar="ROOT", help="the folder that was indexed, to show the crops")
    parser.add_argument("--host", default="127.0.0.1", help="address of the page (%(default)s)")
    parser.add_argument("--port", type=int, default=7860, help="port of the page (%(default)s)")
    options = parser.parse_args()
    launch(options.url, options.images, options.host, options.port)


if __name__ == "__main__":
    main()
