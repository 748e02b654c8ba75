"""`python -m descry.client` is the `descry` command."""

import sys

from descry.client.cli import main

sys.exit(main())
