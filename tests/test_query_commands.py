"""What the commands that ask about people print, against a server in this process."""

import io
import json

import pytest

from descry.client import index_folder
from descry.client.cli import main


@pytest.fixture
def descry(fake, client, folder, monkeypatch, capsys):
    """Run one command on six photos; returns exit code, stdout, stderr."""
    fake.calibration = {"temperatures": {}, "match": {"threshold": 0.5}}
    index_folder(client, folder, progress=io.StringIO())
    monkeypatch.setenv("DESCRY_URL", fake.url)
    capsys.readouterr()

    def run(*arguments: object) -> tuple[int, str, str]:
        code = main([str(argument) for argument in arguments])
        return code, *capsys.readouterr()

    return run


def test_a_match_is_told_beside_the_table(descry):
    code, out, err = descry("search", "upper_color=red", "-k", 2)
    assert code == 0 and len(out.splitlines()) == 3 and "match: the first hit has probability 0.90" in err


def test_no_match_is_said_plainly(descry):
    code, out, err = descry("search", "upper_color=red", "--threshold", 0.95)
    assert code == 0 and "--all" in err
    assert out == "no match in this gallery: the first hit has probability 0.90, below 0.95\n"
    code, out, _ = descry("search", "upper_color=red", "--threshold", 0.95, "--all", "-k", 3)
    lines = out.splitlines()
    assert code == 0 and lines[0].startswith("no match in this gallery") and len(lines) == 5
    content = json.loads(descry("search", "upper_color=red", "--threshold", 0.95, "--json", "-k", 3)[1])
    assert content["verdict"] == "no match" and len(content["hits"]) == 3


def test_every_hit_is_explained(descry):
    code, out, _ = descry("search", "upper_color=red|blue", "gender!=male", "-k", 1, "--explain", "--by-track", "best")
    lines = [line.split() for line in out.splitlines()]
    assert code == 0 and lines[0][0] == "1" and lines[0][-2:] == ["probability", "0.90"]
    assert lines[1][:2] == ["distance", lines[1][1]] and "attributes" in lines[1] and "appearance" in lines[1]
    assert lines[2] == ["images", "f", "0.5000"]
    assert lines[3] == ["attribute", "stated", "photo", "shows", "agrees", "probability", "term"]
    assert lines[4][:5] == ["gender", "not", "male", "female", "yes"] and lines[5][1] == "red|blue"
    (hit,) = json.loads(descry("search", "upper_color!=red", "-k", 1, "--json")[1])["hits"]
    assert hit["probability"] == 0.9 and hit["terms"].keys() == hit["scores"].keys() and hit["frames"] == []
    assert hit["agreement"][0]["stated"] == "not red" and hit["agreement"][0]["agrees"] in (True, False)


def test_the_flags_of_a_search_reach_the_server(fake, descry):
    descry(
        *("search", "gender=male@0.5", "--witness", "gender=female", "age=60+", "--witness", "upper_color!=red"),
        *("--camera", "1", "--track", "a", "--track", "b", "--from", "2024-05-01", "--to", "2024-05-02"),
        *("--where", "weather=rain", "--where", "weather=12", "--where", "lit=true", "--by-track", "mean"),
    )
    inputs = [row for model, row in fake.requests if model == "gallery_search"][-1]
    assert json.loads(inputs["filter"][0]) == {
        "camera": ["1"],
        "track": ["a", "b"],
        "time": {"from": "2024-05-01", "to": "2024-05-02"},
        "metadata": {"weather": ["rain", "12", 12], "lit": ["true", True]},
    }
    assert json.loads(inputs["options"][0]) == {"rank": "tracks", "by": "mean"}
    assert inputs["known"].tolist() == pytest.approx([0.5, 1 / 3, 0, 0, 0, 0, 1 / 3, 1 / 3])


def test_photos_take_the_same_statements(fake, descry, folder):
    photo = folder / "red.jpg"
    assert descry("similar", photo)[0] == 0 and "similar_search" in [model for model, _ in fake.requests]
    code, out, err = descry("similar", photo, "upper_color=blue@0.5", "-k", 2)
    assert code == 0 and len(out.splitlines()) == 3 and "match:" not in err
    code, out, _ = descry("match", photo, "upper_color!=blue", "--witness", "upper_color=red|green")
    assert code == 0 and "not blue / red|green" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["search", "gender=male", "--where", "rain"], "not of the form key=value"),
        (["search", "gender=male", "--threshold", "2"], "from 0 to 1"),
        (["search", "gender=male", "gender=female"], "with a bar where any may hold, gender=a|b"),
        (["search", "upper_color!=pink"], "valid: red, green, blue"),
        (["search", "gender=male@7"], "a confidence is a number from 0 to 1, not 7"),
        (["search", "gender=male", "--witness", "age=unknown"], "state at least one attribute"),
    ],
)
def test_refusals(descry, arguments, message):
    code, out, err = descry(*arguments)
    assert code == 1 and out == "" and message in err
