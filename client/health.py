"""Readiness that means "can answer a query": real calls through the models, not Triton's own word for it."""

from contextlib import suppress

from PIL import Image

from descry.client.errors import GalleryEmpty, ServerFailed
from descry.client.search import SearchClient

# The server's audit log knows this id and this camera, and does not count what asks for them as searches.
PROBED = "descry-health-check"
DAMAGED = "the file is damaged"  # in what the server says of a gallery


def answer_a_query(client: SearchClient) -> None:
    """Ask something of every model that a search passes through; finds nobody, whatever the gallery holds.

    Raises:
        DescryError: a call failed.
    """
    group = client.schema.groups[0]
    statement = {group.name: group.values[0]}
    image = Image.new("RGB", (8, 16))
    client.match(image, statement)
    with suppress(GalleryEmpty):
        client.similar(image, statement, k=1, cameras=[PROBED])


def change_nothing(client: SearchClient) -> None:
    """Ask the models that change the gallery: to delete a row that nobody has, to count what a pruning would delete.

    Raises:
        DescryError: a call failed.
    """
    for change in (lambda: client.delete([PROBED]), lambda: client.prune(camera=PROBED, dry_run=True)):
        try:
            change()
        except ServerFailed as error:
            # What remains of a damaged gallery is served for reading.
            if DAMAGED not in str(error):
                raise
