"""The client against a server that speaks just enough of the wire: what is asked and what is answered."""

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
from fake_server import N
from PIL import Image

from descry.client import (
    GalleryEmpty,
    InvalidRequest,
    SearchClient,
    index_folder,
)
from descry.client.images import image_bytes, load_crop


def test_importing_the_client_loads_nothing_of_the_trainer():
    modules = sorted(path.stem for path in Path(__file__).parents[1].glob("client/*.py") if path.stem != "__main__")
    script = f"""
import importlib, sys
for name in {modules!r}:
    importlib.import_module("descry.client." + name if name != "__init__" else "descry.client")
heavy = {{"torch", "torchvision", "gradio", "timm", "tqdm", "descry.trainer", "descry.export", "descry.demo"}}
sys.exit(", ".join(sorted(heavy & set(sys.modules))) or 0)
"""
    finished = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert finished.returncode == 0, finished.stderr


def test_search_ranks_explains_and_filters(fake, client, folder, tmp_path):
    labels = tmp_path / "labels.csv"
    labels.write_text("image,camera,colour\nred.jpg,1,x\nblue.jpg,2,x\n")
    index_folder(client, folder, labels=labels, progress=io.StringIO())
    hits = client.search({"upper_color": "blue", "gender": "female"}, k=3)
    assert [hit.rank for hit in hits] == [1, 2, 3]
    assert {hits[0].id, hits[1].id} == {"blue.jpg", "deeper/blue.PNG"}
    assert [one.group for one in hits[0].agreement] == ["gender", "upper_color"]
    assert all(one.agrees for one in hits[0].agreement) and not hits[2].agreement[1].agrees
    assert hits[0].scores.shape == hits[0].terms.shape == (N,)
    assert [hit.id for hit in client.search({"upper_color": "blue"}, cameras=["1"])] == ["red.jpg"]
    assert client.search({"upper_color": "blue"}, cameras=["9"]) == []
    assert json.loads(fake.rows["red.jpg"]["metadata"]) == {"image": "red.jpg", "camera": "1"}


def test_the_weight_on_the_wire(fake, client):
    for given, sent in ((None, -1.0), (0, 0.0), (2.5, 2.5)):
        with pytest.raises(GalleryEmpty, match="descry index"):
            client.search({"gender": "male"}, par_weight=given)
        request = [inputs for model, inputs in fake.requests if model == "attribute_search"][-1]
        assert request["par_weight"].tolist() == [sent]
    with pytest.raises(InvalidRequest, match="from 0 on"):
        client.search({"gender": "male"}, par_weight=-1)
    for k in (0, 10_001, 2**40):
        with pytest.raises(InvalidRequest, match=f"from 1 to 10000, not {k}"):
            client.search({"gender": "male"}, k)


def test_an_empty_description_is_refused_with_the_attributes(client):
    for statements in ({}, {"gender": "unknown"}):
        with pytest.raises(InvalidRequest, match="(?s)state at least one attribute.*red | green | blue"):
            client.search(statements)


@pytest.mark.parametrize("form", ["path", "bytes", "pil"])
def test_images_of_every_form(client, folder, form):
    path = folder / "blue.jpg"
    image = {"path": path, "bytes": path.read_bytes(), "pil": Image.open(path)}[form]
    description = client.describe(image)
    assert {one.group: one.value for one in description.predictions}["upper_color"] == "blue"
    assert description.scores.shape == (N,) and description.embedding.shape == (4,)


def test_a_photo_taken_with_the_camera_turned_is_shown_and_sent_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (128, 64), "#ff0000").save(tmp_path / "turned.jpg", exif=exif)
    with Image.open(tmp_path / "turned.jpg") as photo:
        assert Image.open(io.BytesIO(image_bytes(photo))).size == (64, 128)
    assert load_crop(tmp_path, "turned.jpg").size == (64, 128)


def test_agreement_is_that_of_the_statements_at_the_time_of_the_search(client, folder):
    client.index(folder / "red.jpg", "1")
    statements = {"carrying": ["backpack"], "upper_color": "red"}
    (hit,) = client.search(statements)
    statements["carrying"].append("handbag")
    statements["upper_color"] = "blue"
    assert [one.stated for one in hit.agreement] == ["red", "backpack"]
    assert hit.agreement is hit.agreement


def test_match_similar_delete_and_stats(client, folder):
    assert client.match(folder / "red.jpg", {"upper_color": "red"}).agreement[0].agrees
    assert client.index(folder / "red.jpg", "1", {"camera": "c"}) == "added"
    assert client.index(folder / "red.jpg", "1") == "replaced"
    assert [hit.id for hit in client.similar(folder / "red.jpg")] == ["1"]
    assert client.similar(folder / "red.jpg")[0].image == "1"
    assert client.stats().rows == 1
    assert client.delete(["1", "2", "1"]) == {"1": "deleted", "2": "absent"}
    with pytest.raises(GalleryEmpty):
        client.similar(folder / "red.jpg")


def test_token_and_headers_are_sent(fake):
    with SearchClient(fake.url, token="secret", headers={"tenant": "a"}) as client:
        client.stats()
    assert fake.headers["authorization"] == "Bearer secret" and fake.headers["tenant"] == "a"
