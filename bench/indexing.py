"""Indexing JPEGs through the ensemble against decoding and encoding them in process; images/s and their ratio.

python bench/indexing.py [--images FOLDER] [--count 2000] [--backbone mobilenetv2_100]
"""

import argparse
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm
from untrained import ROOT, untrained_repository

from descry.client import SearchClient, index_folder
from descry.client.serve import TritonServer
from descry.export.__main__ import choose_precision
from descry.trainer.datasets.synthetic import generate
from descry.trainer.transforms import ImageConfig, read_image, resize

BATCH = 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=Path, default=ROOT / "data" / "pa100k_2000" / "images")
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--backbone", default="mobilenetv2_100")
    parser.add_argument("--height", type=int, default=256)
    parser.add_argument("--width", type=int, default=128)
    options = parser.parse_args()
    precision = choose_precision("auto")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if not options.images.is_dir():
            generate(folder / "people", options.count // 10, 10, size=(256, 128))
            options.images = folder / "people" / "images"
        chosen = folder / "chosen"
        chosen.mkdir()
        for path in sorted(options.images.resolve().glob("*.jpg"))[: options.count]:
            (chosen / path.name).symlink_to(path)
        models = untrained_repository(folder, options.backbone, options.height, options.width, precision)
        paths = sorted(chosen.iterdir())
        alone = in_process(paths, models[0].traced, models[1].traced, options.height, options.width)
        served = through_server(folder, chosen)
    print(f"{len(paths)} JPEGs, {options.backbone} {precision}, {options.height} x {options.width}")
    print(f"in process (2 decoding threads, batch {BATCH}): {alone:.1f} images/s")
    print(f"through the ensemble, durable rows: {served:.1f} images/s")
    print(f"ratio, ensemble / in process: {served / alone:.2f}")


@torch.inference_mode()
def in_process(paths: list[Path], encoder, head, height: int, width: int) -> float:
    """Decode and encode without a server and without a gallery."""
    transform = resize(ImageConfig(height=height, width=width))
    for _ in range(3):
        encoder(torch.zeros(BATCH, 3, height, width, dtype=torch.uint8))
    started = time.perf_counter()
    with ThreadPoolExecutor(2) as pool:
        for start in tqdm(range(0, len(paths), BATCH), desc="in process"):
            batch = list(pool.map(lambda path: transform(read_image(path)), paths[start : start + BATCH]))
            _, features = encoder(torch.stack(batch))
            head(features)
    return len(paths) / (time.perf_counter() - started)


def through_server(folder: Path, images: Path) -> float:
    """Index the folder as `descry index` does."""
    path = folder / "gallery.sqlite"
    with (
        TritonServer(folder / "models", path, grpc_port=0, http_port=0, metrics_port=0, progress=print) as server,
        SearchClient(server.url, timeout=60) as client,
    ):
        started = time.perf_counter()
        report = index_folder(client, images)
        seconds = time.perf_counter() - started
        if not report.complete:
            raise SystemExit(f"not everything was indexed: {report}")
        np.testing.assert_equal(client.stats().rows, report.found)
    return report.indexed / seconds


if __name__ == "__main__":
    main()
