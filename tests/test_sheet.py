"""Contact sheets: who is shown, what is said of them, and that every crop keeps its shape."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from descry.trainer.datasets.folder import load
from descry.trainer.datasets.persons import DataConfig, DatasetError, PersonDataset
from descry.trainer.datasets.sheet import CELL_HEIGHT, CELL_WIDTH, GAP, LINE_HEIGHT, caption, draw_sheet
from descry.trainer.schema import UNKNOWN, AttributeGroup, AttributeSchema

SCHEMA = AttributeSchema(
    "tiny",
    (
        AttributeGroup("gender", ("male", "female"), "binary", "identity"),
        AttributeGroup("hat", ("no", "yes"), "binary", "head"),
        AttributeGroup("top", ("red", "blue"), "choice", "upper"),
        AttributeGroup("bag", ("backpack", "handbag"), "multi", "carrying"),
    ),
)
FEMALE_HAT_RED_BOTH = [1, 1, 1, 0, 1, 1]
MALE_PLAIN = [0, 0, 0, 0, 0, 0]
RED, BLUE, LIME = (255, 0, 0), (0, 0, 255), (0, 255, 0)


def make(root: Path, persons: list[int], labels: list[list[int]], colors: list[tuple[int, int, int]]) -> PersonDataset:
    images = tuple(root / f"{number}.png" for number in range(len(persons)))
    for path, color in zip(images, colors, strict=True):
        Image.new("RGB", (20, 80), color).save(path)
    return PersonDataset(
        name="tiny",
        schema=SCHEMA,
        images=images,
        attributes=np.array(labels, np.uint8),
        persons=np.array(persons),
        cameras=np.full(len(persons), -1),
        splits=np.array(["train"] * len(persons)),
    )


def count(sheet: Image.Image, color: tuple[int, int, int]) -> int:
    return int((np.asarray(sheet) == color).all(axis=2).sum())


def test_the_images_of_a_person_stand_side_by_side(tmp_path):
    dataset = make(tmp_path, [7, 3, 7, 7, 3], [MALE_PLAIN] * 5, [RED, BLUE, RED, RED, BLUE])
    sheet = draw_sheet(dataset, rows=2, columns=3)
    assert sheet.width == 3 * CELL_WIDTH + 2 * GAP
    pixels = np.asarray(sheet)
    lines = {color: np.flatnonzero((pixels == color).all(axis=2).any(axis=1)) for color in (RED, BLUE)}
    assert not set(lines[RED].tolist()) & set(lines[BLUE].tolist())
    crop = (CELL_HEIGHT // 4) * CELL_HEIGHT
    assert count(sheet, RED) == 3 * crop and count(sheet, BLUE) == 2 * crop


def test_small_strips_share_a_line_and_large_ones_are_cut(tmp_path):
    dataset = make(tmp_path, [1, 1, 1, 2, 3, 3], [MALE_PLAIN] * 6, [RED] * 3 + [BLUE] + [LIME] * 2)
    one = draw_sheet(dataset, rows=1, columns=2)
    crop = (CELL_HEIGHT // 4) * CELL_HEIGHT
    assert sum(count(one, color) for color in (RED, BLUE, LIME)) <= 2 * crop
    all_three = draw_sheet(dataset, rows=2, columns=3)
    assert [count(all_three, color) // crop for color in (RED, BLUE, LIME)] == [3, 1, 2]


def test_unknown_persons_are_a_grid_chosen_by_the_seed(tmp_path):
    dataset = make(tmp_path, [-1] * 12, [MALE_PLAIN] * 12, [(20 * number, 0, 0) for number in range(12)])
    sheet = draw_sheet(dataset, rows=2, columns=3, seed=1)
    assert sheet.size == (3 * (CELL_WIDTH + GAP) + GAP, 2 * (CELL_HEIGHT + 2 * LINE_HEIGHT + 2 * GAP) + GAP)
    assert sheet.tobytes() == draw_sheet(dataset, rows=2, columns=3, seed=1).tobytes()
    assert sheet.tobytes() != draw_sheet(dataset, rows=2, columns=3, seed=2).tobytes()


def test_the_caption_says_what_is_remarkable_or_unknown(tmp_path):
    unknown = [UNKNOWN] * SCHEMA.size
    dataset = make(tmp_path, [4, 4, -1], [FEMALE_HAT_RED_BOTH, MALE_PLAIN, unknown], [RED] * 3)
    assert caption(dataset, [0]) == ["person 4 (train)", "gender female", "hat", "top red", "bag backpack+handbag"]
    assert caption(dataset, [1]) == ["person 4 (train)", "gender male"]
    assert caption(dataset, [0, 1])[1:] == [
        "gender female/male",
        "hat yes/no",
        "top red/none",
        "bag backpack+handbag/none",
    ]
    assert caption(dataset, [2]) == ["2 (train)", "gender ?", "hat ?", "top ?", "bag ?"]


def test_captions_are_drawn_below_the_crops(tmp_path):
    long = make(tmp_path, [-1], [FEMALE_HAT_RED_BOTH], [RED])
    sheet = draw_sheet(long, rows=1, columns=1)
    assert sheet.height > CELL_HEIGHT + 2 * LINE_HEIGHT
    below = np.asarray(sheet.convert("L"))[GAP + CELL_HEIGHT :]
    assert below.min() < 60 and (below[:, :GAP] == 255).all() and (below[:, -GAP:] == 255).all()


def test_a_crop_that_does_not_decode_is_named(tmp_path):
    dataset = make(tmp_path, [1], [MALE_PLAIN], [RED])
    dataset.images[0].write_bytes(b"no image")
    with pytest.raises(DatasetError, match="cannot decode .*0.png"):
        draw_sheet(dataset)


def test_nothing_to_draw_is_an_error(tmp_path):
    dataset = make(tmp_path, [1], [MALE_PLAIN], [RED])
    for given, rows in ((dataset, 0), (dataset.subset("test"), 2)):
        with pytest.raises(DatasetError, match="nothing to draw"):
            draw_sheet(given, rows=rows)


def test_synthetic_people(people):
    sheet = draw_sheet(load(DataConfig(name="folder", root=str(people))), rows=2, columns=4)
    assert sheet.width == 4 * CELL_WIDTH + 2 * GAP and sheet.height > 2 * CELL_HEIGHT
