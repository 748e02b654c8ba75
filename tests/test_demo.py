"""The search page: what it draws, its endpoints with a real server, and how it stands without one."""

import inspect
import json
import re
from pathlib import Path

import numpy as np
import pytest

from descry.client import DescryError, Schema, SearchClient

pytest.importorskip("gradio")
gradio_client = pytest.importorskip("gradio_client")

from demo_page import fill_gallery, opened  # noqa: E402
from tiny_models import SCHEMA  # noqa: E402

from descry.client.audit import read_audit  # noqa: E402
from descry.demo import __main__ as command  # noqa: E402
from descry.demo import describe, embedding_map, figure, login, map, regions  # noqa: E402
from descry.demo.page import build  # noqa: E402
from descry.demo.sentence import sentence  # noqa: E402
from descry.demo.session import Site  # noqa: E402

CAMERA = "test-demo"
TINY = Schema.from_json(SCHEMA)
STREET = Schema.from_json(
    {
        "name": "street",
        "groups": [
            {"name": "gender", "values": ["male", "female"], "kind": "binary", "part": "identity"},
            {"name": "hair_length", "values": ["short", "long"], "kind": "binary", "part": "head"},
            {"name": "hat", "values": ["no", "yes"], "kind": "binary", "part": "head"},
            {"name": "upper_color", "values": ["red", "pink", "blue"], "kind": "choice", "part": "upper"},
            {"name": "lower_kind", "values": ["trousers", "skirt"], "kind": "choice", "part": "lower"},
            {"name": "bag", "values": ["backpack", "handbag", "sack"], "kind": "multi", "part": "carrying"},
        ],
    }
)
WEIGHT, THRESHOLD = 0.7, 0.05  # of the tiny model
MEASURED = [24, WEIGHT, THRESHOLD, [], "", "", "images"]


NEGATED = "A person with a hat, wearing no skirt, carrying no backpack or sack."


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "Anybody: nothing is stated yet."),
        (["gender=female", "hair_length=long"], "A person who is female, with long hair."),
        (["upper_color=red|pink"], "A person wearing a red or pink top."),
        (["upper_color!=red", "hat=no@0.7"], "A person with no hat (70 % sure), wearing a top that is not red."),
        (["upper_color!=red|pink@0.7"], "A person wearing a top that is not red or pink (70 % sure)."),
        (["gender!=male", "hair_length!=long"], "A person who is female, with short hair."),
        (["lower_kind!=skirt", "hat!=no", "bag!=backpack|sack"], NEGATED),
        (["upper_color=none"], "A person wearing no top."),
        (["lower_kind=skirt", "hat=yes"], "A person with a hat, wearing a skirt."),
        (["bag=backpack+handbag"], "A person carrying a backpack and handbag only."),
        (["bag=backpack|handbag"], "A person carrying a backpack or handbag only."),
    ],
)
def test_a_description_reads_as_a_sentence(words, said):
    assert sentence(STREET, describe.parse(STREET, words)) == said


@pytest.mark.parametrize(
    "words",
    [
        ["gender=female"],
        ["upper_color=red|pink@0.7"],
        ["upper_color!=red"],
        ["upper_color=none"],
        ["bag=backpack+handbag"],
        ["bag=backpack|handbag"],
        ["bag!=backpack", "hat=no@0.05"],
    ],
)
def test_the_controls_show_what_is_stated(words):
    drawn = describe.panel(STREET, words)
    pressed = re.findall(r'class="chip (\w*)" aria-pressed="true"(?: data-(?:value|word)="([^"]*)")?', drawn)
    stated = {value for kind, value in pressed if kind != "any"}
    expected = set(re.split(r"[+|]", words[0].split("=")[1].split("@")[0]))
    assert stated == (
        {words[0]} if words == ["bag=backpack|handbag"] else expected | ({"no"} if len(words) > 1 else set())
    )
    assert drawn.count('class="deny" aria-pressed="true"') == sum("!=" in word for word in words)
    assert sum(kind == "any" for kind, _ in pressed) == len(STREET.groups) - len(words)


def test_a_link_of_another_model_keeps_what_this_one_knows():
    assert describe.fitting(STREET, ["wings=yes", "hat=yes", "upper_color=octarine", "hat"]) == ["hat=yes"]
    assert describe.query_string(["upper_color=red|pink"]) == "q=upper_color%3Dred%7Cpink"


def test_the_figure_wears_what_is_stated():
    def drawn(*words):
        return figure.figure(STREET, describe.parse(STREET, list(words)), "a person")

    assert 'fill="#d32f2f"' in drawn("upper_color=red") and 'class="stated"' not in drawn()
    assert "stripes-upper" in drawn("upper_color=red|pink") and "top that is not red" in drawn("upper_color!=red")
    assert figure.HAT in drawn("hat=yes") and figure.HAT not in drawn("hat=no")
    assert figure.LEGS["skirt"] in drawn("lower_kind=skirt") and figure.BAGS["backpack"] in drawn("bag=backpack")


def test_names_from_the_server_are_no_markup():
    evil = "<img src=x onerror=alert(1)>"
    groups = [{"name": evil, "values": [f'"{evil}', evil], "kind": "choice", "part": "upper"}]
    schema = Schema.from_json({"name": evil, "groups": groups})
    words = [f"{evil}={evil}"]
    with pytest.raises(DescryError):  # the name has an equals sign
        describe.parse(schema, words)
    assert evil not in describe.panel(schema, []) + describe.summary(schema, [])
    groups[0]["name"] = "upper"
    schema = Schema.from_json({"name": evil, "groups": groups})
    assert evil not in describe.summary(schema, [f"upper={evil}"]) + describe.panel(schema, [f"upper={evil}"])


def test_every_event_has_a_name_or_belongs_to_another():
    page = build(Site(lambda user: SearchClient("127.0.0.1:9")))
    names = [function.api_name for function in page.fns.values() if function.api_visibility == "public"]
    assert len(names) == len(set(names)) and all(isinstance(name, str) for name in names)
    assert {"search", "explain", "similar", "same_person_but", "read_photo", "add", "delete", "map"} <= set(names)
    assert not page.analytics_enabled


def test_the_page_fetches_nothing_from_elsewhere():
    folder = Path(inspect.getfile(command)).parent
    for path in [*folder.glob("*.css"), *folder.glob("*.js")]:
        assert "http" not in path.read_text(encoding="utf-8").replace("http://www.w3.org", "")


def test_passwords(tmp_path, monkeypatch, capsys):
    users = tmp_path / "users.json"
    monkeypatch.setattr("getpass.getpass", lambda prompt: "a long password")
    assert login.main(["ann", "--file", str(users)]) == 0
    assert login.allowed(users, "ann", "a long password")
    assert not login.allowed(users, "ann", "another password") and not login.allowed(users, "bob", "a long password")
    assert "a long password" not in users.read_text()
    assert login.main(["änn", "--file", str(users)]) == 1 and "ASCII" in capsys.readouterr().err
    assert login.main(["bob", "--file", str(users), "--remove"]) == 1 and "it has ann" in capsys.readouterr().err
    monkeypatch.setattr("getpass.getpass", lambda prompt: "short")
    assert login.main(["bob", "--file", str(users)]) == 1 and "at least 10" in capsys.readouterr().err
    users.chmod(0o644)
    with pytest.raises(DescryError, match="chmod 600"):
        login.allowed(users, "ann", "a long password")


@pytest.mark.parametrize(
    ("flags", "why"),
    [
        (["--host", "0.0.0.0"], "--login FILE"),
        (["--images", "no/such/folder"], "does not exist"),
        (["--login", "no/such/file"], "cannot read the users"),
        (["--url", "http://here"], "host:port"),
    ],
)
def test_an_unsafe_or_mistaken_start_is_refused(flags, why, capsys):
    assert command.main(flags) == 1
    assert why in capsys.readouterr().err


def test_presets_must_be_words_by_name(tmp_path, capsys):
    (tmp_path / "presets.json").write_text('["gender=female"]')
    assert command.main(["--presets", str(tmp_path / "presets.json")]) == 1
    assert "holds no presets" in capsys.readouterr().err


def test_a_map_is_kept_and_drawn(tmp_path):
    generator = np.random.default_rng(0)
    embeddings = generator.normal(size=(40, 8))
    places, method = map.lay_out(embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True))
    assert places.shape == (40, 2) and np.isfinite(places).all() and method
    made = embedding_map.EmbeddingMap(
        [f"row {i}" for i in range(40)], places * 0 + 0.5, np.full((40, 7), 0.3), "d", method
    )
    made.save(tmp_path / "map.npz")
    read = embedding_map.EmbeddingMap.load(tmp_path / "map.npz")
    assert read.ids == made.ids and read.model_digest == "d" and np.allclose(read.scores, 0.3, atol=1e-3)
    (tmp_path / "map.npz").write_bytes(b"no map")
    with pytest.raises(DescryError, match="descry.demo.map"):
        embedding_map.EmbeddingMap.load(tmp_path / "map.npz")


def test_shading_shows_which_regions_count():
    from PIL import Image

    effect = np.zeros((regions.ROWS, regions.COLUMNS))
    effect[0], effect[-1] = 1, -1
    shaded = np.asarray(regions.shaded(Image.new("RGB", (64, 128), "#888888"), effect), float)
    top, middle, bottom = shaded[4].mean(axis=0), shaded[64].mean(axis=0), shaded[-4].mean(axis=0)
    assert top.min() > middle.max() and bottom[0] > bottom[2] + 30


def test_without_a_server_the_page_opens_and_says_so():
    with opened("127.0.0.1:9") as address:
        client = gradio_client.Client(address, verbose=False, analytics_enabled=False)
        status, panel, *_ = client.predict([], api_name="/open")
        assert "descry serve" in status and "No attributes yet" in panel["props"]["markup"]
        for name, given in [("/search", [["gender=male"], *MEASURED]), ("/add", [[], ""]), ("/preset", ["x"])]:
            with pytest.raises(Exception, match="descry serve|drop images|has not answered"):
                client.predict(*given, api_name=name)
        assert "descry serve" in client.predict(api_name="/gallery")[0]
        client.close()


@pytest.fixture(scope="module")
def images(request, tmp_path_factory):
    """Four crops in the gallery, one of whose files has gone."""
    root = tmp_path_factory.mktemp("demo")
    fill_gallery(request.getfixturevalue("server").url, root, CAMERA)
    (root / f"{CAMERA}-3.png").unlink()
    return root


@pytest.fixture
def page(server, images):
    """A client of the page's endpoints."""
    with opened(server.url, images) as address:
        client = gradio_client.Client(address, verbose=False, analytics_enabled=False)
        client.predict([], api_name="/open")
        yield client
        client.close()


def markup(component: dict) -> str:
    return component["props"]["markup"]


ONLY = [24, WEIGHT, THRESHOLD, [CAMERA], "", "", "images"]


@pytest.mark.server
def test_describe_search_and_explain(page, server):
    status, panel, summary, presets, weight, threshold, cameras = page.predict(
        ["hat=yes", "wings=no"], api_name="/open"
    )
    assert "images" in status and panel["value"] == ["hat=yes"] and "with a hat" in summary
    assert "Woman in red" in markup(presets) and "another model" not in markup(presets)
    assert weight["value"] == pytest.approx(0.7) and threshold["value"] == pytest.approx(0.05)
    assert [CAMERA, CAMERA] in [list(choice) for choice in cameras["choices"]]
    assert "a red top" in page.predict(["upper_color=red"], api_name="/sentence")
    assert page.predict("Woman in red", api_name="/preset")[0]["value"] == ["gender=female", "upper_color=red"]
    assert page.predict(api_name="/clear")[0]["value"] == []

    hits, why, answer = page.predict(["gender=female", "accessory=bag+glasses"], *ONLY, api_name="/search")
    with SearchClient(server.url) as direct:
        expected = direct.search({"gender": "female", "accessory": ["bag", "glasses"]}, 24, cameras=[CAMERA])
    assert [hit["id"] for hit in answer["hits"]] == [hit.id for hit in expected] and answer["verdict"] == "match"
    assert markup(hits).count('class="hit"') == 4 and markup(hits).count('class="no-image"') == 1
    assert "Match." in markup(hits) and "camera test-demo" in markup(hits)
    assert expected[0].id in markup(why) and f"Distance {expected[0].distance:.3f}" in markup(why)

    why = page.predict(2, api_name="/explain")
    assert expected[1].id in markup(why) and "same person, but" in markup(why)
    in_track = [hit.rank for hit in expected if "track" in hit.metadata]
    assert f"Track {CAMERA}-track" in markup(page.predict(in_track[0], api_name="/explain"))
    with pytest.raises(Exception, match="attribute '&lt;b&gt;x' is not known"):
        page.predict(["<b>x=y"], *ONLY, api_name="/search")
    with pytest.raises(Exception, match="no hit of rank 99"):
        page.predict(99, api_name="/explain")


@pytest.mark.server
def test_settings_rank_again_at_once(page, server):
    page.predict(["gender=female"], *ONLY, api_name="/search")
    hits, _, answer = page.predict(24, 5.0, 1.0, [CAMERA], "", "", "images", api_name="/rerank")
    with SearchClient(server.url) as direct:
        expected = direct.search({"gender": "female"}, 24, 5.0, [CAMERA])
    assert [hit["id"] for hit in answer["hits"]] == [hit.id for hit in expected]
    assert (
        answer["verdict"] == "no match"
        and "No match in this gallery" in markup(hits)
        and "Show the nearest" in markup(hits)
    )
    tracks = page.predict(24, WEIGHT, THRESHOLD, [CAMERA], "", "", "tracks by best image", api_name="/rerank")[2]
    assert len(tracks["hits"]) == 3
    limited = page.predict(
        24, WEIGHT, THRESHOLD, [CAMERA], "2026-05-01T08:02", "2026-05-01T08:03", "images", api_name="/rerank"
    )
    assert [hit["id"] for hit in limited[2]["hits"]] == [f"{CAMERA}-2.png"]
    nobody = page.predict(24, WEIGHT, THRESHOLD, [CAMERA], "2030-01-01", "", "images", api_name="/rerank")
    assert "Nobody is left" in markup(nobody[0]) and markup(nobody[1]) == ""


@pytest.mark.server
def test_a_hit_is_a_query_too(page, server, images):
    answer = page.predict(["gender=female"], *ONLY, api_name="/search")[2]
    rank = next(hit["rank"] for hit in answer["hits"] if hit["id"] == f"{CAMERA}-1.png")
    assert "<figure" in markup(page.predict(rank, api_name="/regions"))
    hits, _, answer = page.predict(rank, *ONLY, api_name="/similar")
    assert answer["hits"][0]["id"] == f"{CAMERA}-1.png" and "Looks like hit" in markup(hits)
    hits, _, answer = page.predict(["hat=yes"], *ONLY, api_name="/same_person_but")
    with SearchClient(server.url) as direct:
        expected = direct.similar(images / f"{CAMERA}-1.png", {"hat": "yes"}, 24, cameras=[CAMERA])
    assert [hit["id"] for hit in answer["hits"]] == [hit.id for hit in expected] and "with a hat" in markup(hits)
    gone = next(hit["rank"] for hit in answer["hits"] if hit["id"] == f"{CAMERA}-3.png")
    with pytest.raises(Exception, match="cannot open"):
        page.predict(gone, *ONLY, api_name="/similar")


@pytest.mark.server
def test_a_photo_is_read_edited_and_searched_with(page, server, images):
    photo = gradio_client.handle_file(images / f"{CAMERA}-0.png")
    panel = page.predict(photo, api_name="/read_photo")
    assert len(panel["value"]) == len(TINY.groups) and '<small class="odds">' in markup(panel)
    answer = page.predict(photo, *ONLY, api_name="/photo_similar")[2]
    assert answer["hits"][0]["id"] == f"{CAMERA}-0.png"
    with pytest.raises(Exception, match="nothing differs"):
        page.predict(photo, panel["value"], *ONLY, api_name="/photo_but")
    hat = "hat=no" if "hat=yes" in panel["value"] else "hat=yes"
    changed = [hat if word.startswith("hat=") else word for word in panel["value"]]
    hits, _, answer = page.predict(photo, changed, *ONLY, api_name="/photo_but")
    assert "Looks like your photo, but" in markup(hits) and len(answer["hits"]) == 4
    assert page.predict(changed, api_name="/photo_attributes")[0]["value"] == changed
    assert page.predict(None, api_name="/read_photo")["value"] == []


@pytest.mark.server
def test_images_come_and_go(page, server, images, tmp_path):
    from PIL import Image

    Image.new("RGB", (32, 64), "#aa3355").save(tmp_path / "new.png")
    (tmp_path / "bad.png").write_bytes(b"not an image")
    files = [gradio_client.handle_file(tmp_path / name) for name in ("new.png", "bad.png")]
    done, stats, trail, _ = page.predict(files, "door", api_name="/add")
    assert "1 added, 1 refused" in done and "bad.png" in done and "camera door" in stats and "add" in trail
    assert "1 already there" in page.predict(files[:1], "door", api_name="/add")[0]
    assert "door" in str(page.predict(api_name="/status")[-1]["choices"])
    answer = page.predict(["gender=female"], 24, WEIGHT, THRESHOLD, ["door"], "", "", "images", api_name="/search")[2]
    id = answer["hits"][0]["id"]
    assert id.startswith("added/") and (images / id).is_file()
    assert page.predict("", api_name="/selected") == id
    done, _, trail, left = page.predict(f"{id}\nnobody", api_name="/delete")
    assert "1 deleted" in done and "no row: nobody" in done and left == "nobody" and not (images / id).exists()
    assert "rows checked: all sound" in page.predict(api_name="/gallery_check")
    assert "2026-05-01" in page.predict(api_name="/gallery_times")


@pytest.mark.server
def test_what_is_known_of_the_model(server, images, tmp_path):
    with SearchClient(server.url, timeout=60) as client:
        made = map.make_map(client)
        model = client.model
    made.save(tmp_path / "map.npz")
    quality = {"rank1": 0.5, "rank5": 0.7, "rank10": 0.8, "mAP": 0.4, "queries": 10}
    group = {"values": {"male": {**quality, "intervals": {"rank1": [0.4, 0.6]}}}}
    evaluation = {
        "dataset": {"schema": "tiny", "name": "tiny street", "split": "test"},
        "images": 1234,
        "search": {"fused": {"all": quality}},
        "intervals": {"fused": {"all": {"rank1": [0.45, 0.55]}}},
        "attributes": {"groups": {"hat": 0.91}},
        "fairness": {"search": {"gender": group}, "recognition": {}},
        "fusion": {"par_weight": model.par_weight, "max_par": model.max_par, "max_emb": model.max_emb},
    }
    (tmp_path / "evaluation.json").write_text(json.dumps(evaluation))
    with opened(server.url, images, map=tmp_path / "map.npz", evaluation=tmp_path / "evaluation.json") as address:
        page = gradio_client.Client(address, verbose=False, analytics_enabled=False)
        page.predict([], api_name="/open")
        page.predict(["gender=female"], *ONLY, api_name="/search")
        group, drawn, card = page.predict(None, api_name="/insight")
        assert group["value"] == "upper_color" and "<circle" in drawn and f"of {len(made.ids)} embeddings" in drawn
        assert "tiny street" in card and "50.0 %" in card and "gender: male" in card and "another model" not in card
        assert "coloured by hat" in page.predict("hat", api_name="/map")
        page.close()
    with opened(server.url, images) as address:
        page = gradio_client.Client(address, verbose=False, analytics_enabled=False)
        _, drawn, card = page.predict(None, api_name="/insight")
        assert "descry.demo.map" in drawn and "--evaluation" in card
        page.close()


@pytest.mark.server
def test_a_search_is_in_the_audit_log_with_the_users_name(server, images):
    def allowed(name, password):
        return (name, password) == ("ann", "secret")

    with opened(server.url, images, auth=allowed) as address:
        page = gradio_client.Client(address, verbose=False, analytics_enabled=False, auth=("ann", "secret"))
        page.predict([], api_name="/open")
        page.predict(["hat=yes"], *ONLY, api_name="/search")
        assert "logged in as <b>ann</b>" in page.predict(api_name="/status")[0]
        page.close()
        with pytest.raises(Exception, match="Could not login"):
            gradio_client.Client(address, verbose=False, analytics_enabled=False, auth=("ann", "wrong"))
    assert any(entry.get("user") == "ann" for entry in read_audit(server.config.audit_file))
