"""The synthetic dataset: a pure function of its parameters, readable, correctly split, and its attributes show."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from descry.trainer.datasets import folder, synthetic
from descry.trainer.datasets.pedestrian_population import SCHEMA, draw_population
from descry.trainer.datasets.persons import DataConfig, DatasetError, PersonDataset
from descry.trainer.datasets.synthesize import main
from descry.trainer.schema import PARTS

SMALL = {"persons": 12, "images_per_person": 3, "cameras": 3, "seed": 3}
PLAIN = {
    "gender": "male",
    "age": "adult",
    "hair_length": "short",
    "hair_color": "brown",
    "hat": "no",
    "upper_color": "blue",
    "sleeves": "long",
    "upper_pattern": "plain",
    "lower_kind": "trousers",
    "lower_color": "gray",
    "boots": "no",
    "bag": "none",
}


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def crops(**changes: str) -> np.ndarray:
    """The same sixteen images of the plain person with `changes`, float [16, 128, 64, 3]."""
    row = SCHEMA.encode({**PLAIN, **changes})
    return np.stack([synthetic.render_person(row, 7, person=1, image=image) for image in range(16)]).astype(float)


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("synthetic") / "set"
    synthetic.generate(root, **SMALL, workers=1, progress=False)
    return root


@pytest.fixture(scope="module")
def dataset(rendered: Path) -> PersonDataset:
    return folder.load(DataConfig(name="folder", root=str(rendered)))


@pytest.fixture(scope="module")
def plain() -> np.ndarray:
    return crops()


def test_the_number_of_workers_changes_no_byte(rendered: Path, tmp_path: Path) -> None:
    synthetic.generate(tmp_path / "set", **SMALL, workers=2, progress=False)
    assert contents(tmp_path / "set") == contents(rendered)
    assert not [path for path in tmp_path.iterdir() if path.name != "set"]


def test_another_seed_draws_other_people(rendered: Path, tmp_path: Path) -> None:
    synthetic.generate(tmp_path / "set", **{**SMALL, "seed": 4}, workers=1, progress=False)
    assert (tmp_path / "set/labels.csv").read_bytes() != (rendered / "labels.csv").read_bytes()


def test_schema_covers_every_body_part(rendered: Path, dataset: PersonDataset) -> None:
    assert {group.part for group in SCHEMA.groups} == set(PARTS)
    assert dataset.schema == SCHEMA


def test_labels_agree_with_the_population(rendered: Path, dataset: PersonDataset) -> None:
    attributes, splits = draw_population(SMALL["persons"], SMALL["seed"])
    assert len(dataset) == SMALL["persons"] * SMALL["images_per_person"]
    np.testing.assert_array_equal(dataset.attributes, attributes[dataset.persons])
    np.testing.assert_array_equal(dataset.splits, splits[dataset.persons])
    assert set(dataset.cameras) == {1, 2, 3}
    with (rendered / "labels.csv").open(encoding="utf-8") as file:
        times = [(row["person"], row["time"]) for row in csv.DictReader(file)]
    assert len(set(times)) == len(times)


def test_every_person_is_seen_by_several_cameras(dataset: PersonDataset) -> None:
    for person in np.unique(dataset.persons):
        assert len(set(dataset.cameras[dataset.persons == person])) == 3


@pytest.mark.parametrize("persons", [10, 37, 300])
@pytest.mark.parametrize("seed", range(5))
def test_test_split_has_seen_and_unseen_categories(persons: int, seed: int) -> None:
    attributes, splits = draw_population(persons, seed)
    categories = {split: {row.tobytes() for row in attributes[splits == split]} for split in ("train", "val", "test")}
    known = categories["train"] | categories["val"]
    assert categories["test"] & categories["train"]
    assert categories["test"] - known
    assert abs((splits == "test").mean() - 0.3) < 0.06
    assert (splits == "val").any()


def test_people_share_categories_and_follow_the_statistics() -> None:
    attributes, _ = draw_population(600, 0)
    assert 200 <= len({row.tobytes() for row in attributes}) <= 300
    people = [SCHEMA.decode(row) for row in attributes]
    skirts = [person["gender"][0] for person in people if person["lower_kind"] == ("skirt",)]
    gray = [person["age"][0] for person in people if person["hair_color"] == ("gray",)]
    assert skirts.count("female") > 0.9 * len(skirts) > 0
    assert gray.count("senior") > 0.6 * len(gray) > 0


# Rows of the crop in which most of the change must lie.
WHERE = [
    ({"hair_length": "long"}, slice(0, 64)),
    ({"hair_color": "blond"}, slice(0, 48)),
    ({"hat": "yes"}, slice(0, 48)),
    ({"upper_color": "red"}, slice(16, 80)),
    ({"sleeves": "short"}, slice(16, 80)),
    ({"upper_pattern": "striped"}, slice(16, 80)),
    ({"upper_pattern": "plaid"}, slice(16, 80)),
    ({"upper_pattern": "logo"}, slice(16, 72)),
    ({"lower_kind": "shorts"}, slice(56, 128)),
    ({"lower_kind": "skirt"}, slice(48, 128)),
    ({"lower_color": "white"}, slice(48, 128)),
    ({"boots": "yes"}, slice(80, 128)),
    ({"bag": "backpack"}, slice(16, 88)),
    ({"bag": "handbag"}, slice(24, 112)),
    ({"bag": "shoulder_bag"}, slice(24, 96)),
    ({"gender": "female"}, slice(0, 128)),
    ({"age": "child"}, slice(0, 128)),
    ({"age": "senior"}, slice(0, 128)),
]


@pytest.mark.parametrize(("change", "rows"), WHERE, ids=[str(*change.items()) for change, _ in WHERE])
def test_a_changed_attribute_shows_where_it_is_worn(plain: np.ndarray, change: dict[str, str], rows: slice) -> None:
    difference = np.abs(crops(**change) - plain).sum(-1).mean(0)
    assert difference.max() > 12
    assert difference[rows].sum() > 0.75 * difference.sum()


def test_a_hat_changes_the_top_third_more_than_the_bottom_third(plain: np.ndarray) -> None:
    difference = np.abs(crops(hat="yes") - plain).mean((0, 2, 3))
    assert difference[:43].sum() > 10 * difference[85:].sum()


def test_a_red_top_reddens_the_torso(plain: np.ndarray) -> None:
    change = (crops(upper_color="red") - plain)[:, 30:55, 26:38].mean((0, 1, 2))
    assert change[0] > 20 > -20 > change[2]


def test_two_persons_of_one_category_look_different() -> None:
    row = SCHEMA.encode(PLAIN)
    one, other = (synthetic.render_person(row, 7, person=person, image=0).astype(float) for person in (1, 2))
    assert np.abs(one - other).mean() > 3


@pytest.mark.parametrize("size", [(32, 16), (96, 32), (256, 128)])
def test_sizes(size: tuple[int, int]) -> None:
    pixels = synthetic.render_person(SCHEMA.encode(PLAIN), 0, size=size)
    assert pixels.shape == (*size, 3) and pixels.dtype == np.uint8 and pixels.std() > 10


def test_a_rendered_folder_is_kept(rendered: Path) -> None:
    before = (rendered / "labels.csv").stat().st_mtime_ns
    dataset = synthetic.load(DataConfig(root=str(rendered), options={**SMALL, "workers": 1}))
    assert (rendered / "labels.csv").stat().st_mtime_ns == before
    assert len(dataset.subset("train")) and len(dataset.subset("val")) and len(dataset.subset("test"))


def test_other_parameters_are_refused(rendered: Path) -> None:
    with pytest.raises(DatasetError, match=r"persons 12, not 13.*delete"):
        synthetic.generate(rendered, **{**SMALL, "persons": 13}, progress=False)


def test_a_foreign_folder_is_refused_and_kept(tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").write_bytes(b"beach")
    with pytest.raises(DatasetError, match="choose another root"):
        synthetic.generate(tmp_path, **SMALL, progress=False)
    assert (tmp_path / "holiday.jpg").read_bytes() == b"beach"


def test_a_failure_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(synthetic, "_write_labels", fail)
    with pytest.raises(OSError, match="disk full"):
        synthetic.generate(tmp_path / "set", **SMALL, workers=1, progress=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"persons": 3}, "at least 10"),
        ({"images_per_person": 0}, "images_per_person must be at least 1"),
        ({"height": 8}, "at least 32 x 16"),
        ({"people": 3}, "'people' is not one of persons"),
    ],
)
def test_bad_options_are_named(tmp_path: Path, options: dict[str, int], message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        synthetic.load(DataConfig(root=str(tmp_path / "set"), options=options))


def test_command_line(rendered: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = ["--persons", "12", "--images-per-person", "3", "--cameras", "3", "--size", "128x64", "--workers", "1"]
    assert main([str(rendered), *common, "--seed", "3"]) == 0
    assert "36 images of 12 persons" in capsys.readouterr().out
    assert main([str(rendered), *common, "--seed", "9"]) == 2
    assert "delete" in capsys.readouterr().err


def test_parameters_are_recorded(rendered: Path) -> None:
    record = json.loads((rendered / "synthetic.json").read_text(encoding="utf-8"))
    assert record["persons"] == 12 and record["size"] == [128, 64] and record["version"] == synthetic.VERSION
