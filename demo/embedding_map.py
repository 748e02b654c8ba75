"""The map of a gallery's embeddings: a file with a place for every image, and the picture of it."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from descry.client import Group, InvalidRequest, Ranking, Schema
from descry.demo.colors import PALETTE, is_color
from descry.demo.crops import picture_tag
from descry.demo.sentence import plain

SIZE = (1000, 640)
MARGIN = 24
CATEGORIES = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9", "#f0e442", "#888888")
GROUND, EDGE = "#f4f5f7", "#7f8794"
DOT, FINER = 3.5, 3  # pixels of a dot's radius; drawn so many times larger, for smooth edges
NEAREST = 5  # hits that tell where the query is drawn


@dataclass(frozen=True, eq=False)
class EmbeddingMap:
    """A gallery on the plane.

    Attributes:
        ids: of the rows.
        places: float32 [n, 2] in 0..1.
        scores: float32 [n, N], 0..1.
        model_digest: of the model that embedded the rows.
        method: how the places were found, such as `t-SNE`.
    """

    ids: Sequence[str]
    places: np.ndarray
    scores: np.ndarray
    model_digest: str
    method: str

    def save(self, path: Path) -> None:
        """Write it.

        Raises:
            InvalidRequest: it cannot be written.
        """
        try:
            np.savez_compressed(
                path,
                ids=np.array(self.ids, np.str_),
                places=self.places.astype(np.float32),
                scores=self.scores.astype(np.float16),
                model_digest=self.model_digest,
                method=self.method,
            )
        except OSError as error:
            raise InvalidRequest(f"cannot write the map {path}: {error.strerror}") from error

    @classmethod
    def load(cls, path: Path) -> "EmbeddingMap":
        """Read it.

        Raises:
            InvalidRequest: it cannot be read, or is no map.
        """
        try:
            with np.load(path, allow_pickle=False) as content:
                return cls(
                    [str(id) for id in content["ids"]],
                    content["places"],
                    content["scores"].astype(np.float32),
                    str(content["model_digest"]),
                    str(content["method"]),
                )
        except (OSError, ValueError, KeyError) as error:
            raise InvalidRequest(
                f"cannot read the map {path}: {error}; make one with python -m descry.demo.map"
            ) from error

    def pixels(self) -> np.ndarray:
        """Where the images are in a picture of `SIZE`, float [n, 2]."""
        return MARGIN + self.places * (np.array(SIZE) - 2 * MARGIN)


def draw(map: EmbeddingMap, schema: Schema, group: Group, ranking: Ranking) -> str:
    """The map with the images coloured by what they show of a group, and the hits of a ranking on it."""
    shown = [group.shown(scores) for scores in map.scores[:, schema.slices[group.name]]]
    names = ["+".join(values) for values in shown]
    colors = _colors(group, names)
    picture = Image.new("RGB", (SIZE[0] * FINER, SIZE[1] * FINER), GROUND)
    pen = ImageDraw.Draw(picture)
    for (x, y), name in zip(map.pixels() * FINER, names, strict=True):
        edge = EDGE if colors[name] == PALETTE["white"] else None
        reach = DOT * FINER
        pen.ellipse((x - reach, y - reach, x + reach, y + reach), fill=colors[name], outline=edge, width=FINER)
    picture = picture.resize(SIZE, Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    words = f"map of {len(names)} images, coloured by {plain(group.name)}"
    legend = "".join(
        f'<li><i class="swatch" style="background:{color}"></i>{escape(plain(name))} {names.count(name)}</li>'
        for name, color in colors.items()
    )
    return (
        f'<figure class="map">{picture_tag(buffer.getvalue(), "png", words, SIZE)}{_hits(map, ranking)}</figure>'
        f'<ul class="legend">{legend}</ul>'
    )


def _hits(map: EmbeddingMap, ranking: Ranking) -> str:
    """Rings around the hits, and a cross where the query would be."""
    rows = {id: index for index, id in enumerate(map.ids)}
    found = [(hit.rank, *map.pixels()[rows[hit.id]]) for hit in ranking if hit.id in rows]
    rings = "".join(
        f'<g><circle cx="{x:.0f}" cy="{y:.0f}" r="9"/>'
        + (f'<text x="{x + 11:.0f}" y="{y - 8:.0f}">{rank}</text>' if rank <= NEAREST else "")
        + "</g>"
        for rank, x, y in found
    )
    cross = ""
    if found:
        places = np.array([place[1:] for place in found[:NEAREST]])
        apart = np.linalg.norm(places[:, np.newaxis] - places, axis=-1).sum(axis=1)
        x, y = places[apart.argmin()]
        cross = f'<path class="query" d="M{x - 12:.0f} {y:.0f} h24 M{x:.0f} {y - 12:.0f} v24"/>'
    said = f"{len(found)} hits of the last search" if found else "no hits to show"
    return f'<svg viewBox="0 0 {SIZE[0]} {SIZE[1]}" role="img" aria-label="{said}">{rings}{cross}</svg>'


def _colors(group: Group, names: list[str]) -> dict[str, str]:
    """A colour for each value that occurs, in the order of the schema, the rest after it."""
    occurring = sorted(
        set(names),
        key=lambda name: (name not in group.choices, group.choices.index(name) if name in group.choices else 0, name),
    )
    if is_color(group):
        return {name: PALETTE.get(name, "#b9a7d6") for name in occurring}
    return {name: CATEGORIES[min(index, len(CATEGORIES) - 1)] for index, name in enumerate(occurring)}
