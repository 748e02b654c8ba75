"""The search page through its API: real server, and no server."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from descry.client import Group, SearchClient

pytest.importorskip("gradio")
gradio_client = pytest.importorskip("gradio_client")

from descry.demo import app  # noqa: E402

CAMERA = "test-demo"


@contextmanager
def opened(url: str, images: Path | None) -> Iterator["gradio_client.Client"]:
    """The page on a free port, and a client of its API."""
    page = app.build(url, images)
    _, address, _ = page.queue().launch(prevent_thread_lock=True, quiet=True, server_name="127.0.0.1", share=False)
    client = gradio_client.Client(address, verbose=False, analytics_enabled=False)
    try:
        yield client
    finally:
        client.close()
        page.close()


@pytest.fixture(scope="module")
def images(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three crops in the gallery, one of whose files has gone."""
    root = tmp_path_factory.mktemp("demo")
    generator = np.random.default_rng(1)
    with SearchClient(request.getfixturevalue("server").url) as client:
        for number in range(3):
            path = root / f"demo-{number}.png"
            Image.fromarray(generator.integers(0, 255, (64, 32, 3), np.uint8)).save(path)
            client.index(path, path.name, {"image": path.name, "camera": CAMERA})
    (root / "demo-2.png").unlink()
    return root


@pytest.mark.server
def test_search_and_explain(server, images):
    statements = {"gender": "female", "accessory": ["bag", "glasses"]}
    with opened(server.url, images) as client:
        gallery, rank, heading, table = client.predict(statements, 50, False, 2.0, api_name="/search")
        with SearchClient(server.url) as direct:
            hits = direct.search(statements, 50, 2.0)
        assert rank == 1 and len(gallery) == len(hits)
        agreeing = sum(one.agrees for one in hits[0].agreement)
        name = hits[0].id.rsplit("/")[-1]
        assert gallery[0]["caption"] == f"1 · {hits[0].distance:.3f} · {agreeing} of 2 agree\n{name}"
        assert f"**{hits[0].id}**" in heading and "= 2 × attributes" in heading
        assert [row[5] for row in table["data"]] == [f"{one.term:.3f}" for one in hits[0].agreement]
        assert [row[:2] for row in table["data"]] == [["gender", "female"], ["accessory", "bag+glasses"]]
        with Image.open(gallery[0]["image"]) as shown:
            assert shown.size == app.CROP
        heading, table = client.predict(3, api_name="/explain")
        assert f"**{hits[2].id}**" in heading
        assert table["data"][0][2] == hits[2].agreement[0].predicted
        assert client.predict(10_000, api_name="/explain")[0] == app.NOTHING_SELECTED


@pytest.mark.server
def test_refusals_are_readable_and_the_page_goes_on(server, images):
    with opened(server.url, None) as client:
        with pytest.raises(Exception, match="state at least one attribute"):
            client.predict({}, 5, True, 1.0, api_name="/search")
        with pytest.raises(Exception, match="did you mean 'gender'"):
            client.predict({"gendre": "male"}, 5, True, 1.0, api_name="/search")
        assert client.predict({"gender": "male"}, 5, True, 1.0, api_name="/search")[0]


def test_without_a_server_the_page_opens_and_says_so():
    with opened("127.0.0.1:9", None) as client, pytest.raises(Exception, match="descry serve"):
        client.predict({"gender": "male"}, 5, True, 1.0, api_name="/search")


def test_a_control_offers_what_may_be_stated():
    choice = app.control(Group("upper_color", "choice", "upper", ("red", "blue")))
    assert [value for value, _ in choice.choices] == ["any", "red", "blue", "none"] and choice.value == "any"
    multi = app.control(Group("accessory", "multi", "carrying", ("bag", "hat")))
    assert multi.multiselect and multi.value == [] and [value for value, _ in multi.choices] == ["bag", "hat", "none"]
    binary = app.control(Group("hat", "binary", "head", ("no", "yes")))
    assert [value for value, _ in binary.choices] == ["any", "no", "yes"]


def test_the_page_never_offers_to_share_people():
    page = app.build("127.0.0.1:9", None)
    galleries = [block for block in page.blocks.values() if isinstance(block, app.gr.Gallery)]
    assert [gallery.buttons for gallery in galleries] == [["fullscreen"]]
    assert not page.analytics_enabled
