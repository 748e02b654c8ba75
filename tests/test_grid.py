"""Pictures of a ranking."""

import io

import pytest
from PIL import Image

from descry.client import (
    InvalidRequest,
    draw_grid,
    index_folder,
    thumbnail,
)


def test_grid_shows_the_crops_whole(client, folder, tmp_path):
    index_folder(client, folder, progress=io.StringIO())
    hits = client.search({"upper_color": "blue", "gender": "male"}, k=6)
    (folder / hits[1].id).unlink()
    picture = tmp_path / "grid.png"
    draw_grid(hits, folder, picture, "upper_color=blue gender=male", columns=3)
    with Image.open(picture) as drawn:
        colors = {color for _, color in drawn.convert("RGB").getcolors(1 << 20)}
        assert drawn.width >= 480 and drawn.height > 512 and drawn.getpixel((0, 0)) == (255, 255, 255)
        assert any(blue > 240 and red < 20 for red, _, blue in colors)
    with pytest.raises(InvalidRequest, match="cannot write"):
        draw_grid(hits, folder, tmp_path / "no" / "grid.png", "")
    with pytest.raises(InvalidRequest, match="no hits"):
        draw_grid([], folder, picture, "")


def test_thumbnail_never_leaves_the_image_folder(folder, tmp_path):
    Image.new("RGB", (8, 8), "#ff0000").save(tmp_path / "secret.png")
    shown = thumbnail(folder, "../secret.png", (40, 80))
    assert shown.size == (40, 80) and (255, 0, 0) not in {color for _, color in shown.getcolors(1 << 16)}
    inside = thumbnail(folder, "red.jpg", (40, 80))
    assert inside.getpixel((20, 40))[0] > 200


@pytest.mark.parametrize("kept", [0, 20, 60, 200])
def test_a_damaged_crop_is_a_placeholder(folder, kept):
    whole = (folder / "deeper" / "red.PNG").read_bytes()
    (folder / "damaged.png").write_bytes(whole[: min(kept, len(whole) - 30)])
    assert thumbnail(folder, "damaged.png").getpixel((0, 0)) == (192, 192, 192)
