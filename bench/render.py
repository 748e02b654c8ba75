"""Images per second of the synthetic dataset, JPEG encoding and writing included: `python bench/render.py`.

The processor time tells the speed of the code itself where other programs share the machine.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

from descry.trainer.datasets.synthesize import parse_size
from descry.trainer.datasets.synthetic import generate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--persons", type=int, default=200)
    parser.add_argument("--images-per-person", type=int, default=10)
    parser.add_argument("--size", type=parse_size, default=(128, 64))
    given = parser.parse_args()
    images = given.persons * given.images_per_person
    for workers in (1, 2):
        with tempfile.TemporaryDirectory() as folder:
            start, before = time.perf_counter(), os.times()
            generate(
                Path(folder) / "set",
                persons=given.persons,
                images_per_person=given.images_per_person,
                size=given.size,
                workers=workers,
                progress=False,
            )
            seconds, after = time.perf_counter() - start, os.times()
        busy = sum(after[:4]) - sum(before[:4])
        size = f"{given.size[0]}x{given.size[1]}"
        print(
            f"{workers} worker(s), {size}: {images} images in {seconds:.1f} s, {images / seconds:.0f} images/s; "
            f"{1000 * busy / images:.1f} ms processor time an image"
        )


if __name__ == "__main__":
    main()
