"""Parity of the export over methods and backbones: eager float32 against TorchScript, as a markdown table.

python bench/parity.py [--method asmr cerberus …] [--backbone resnet50 pvt_v2_b2 mobilenetv2_100]
    [--precision float32 bfloat16] [--height 128 --width 64]
"""

import argparse
import tempfile
from pathlib import Path

import torch
from untrained import ROOT, untrained_checkpoint

from descry.export.parity import BATCHES, DIFFERENCES, ParityError, ParityRow, check_parity, measure_parity
from descry.export.scripted import PRECISIONS, script_models
from descry.trainer.methods import METHODS

BACKBONES = ("resnet50", "pvt_v2_b2", "mobilenetv2_100")
# Random weights where there is none of these files.
WEIGHTS = {"mobilenetv2_100": ROOT / "weights" / "mobilenetv2_100_imagenet.safetensors"}


def worst(rows: list[ParityRow]) -> list[str]:
    """The largest differences and the least agreements over all batch sizes."""
    differences = (max(getattr(row, name) for row in rows) for name in DIFFERENCES)
    agreements = (min(getattr(row, name) for row in rows) for name in ("top1", "top10"))
    return [*(f"{value:.1e}" for value in differences), *(f"{value:.3f}" for value in agreements)]


def verdict(rows: list[ParityRow], precision: str) -> str:
    try:
        check_parity(rows, precision)
    except ParityError:
        return "refused"
    return "written"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--method", nargs="+", default=sorted(METHODS), choices=sorted(METHODS))
    parser.add_argument("--backbone", nargs="+", default=BACKBONES)
    parser.add_argument("--precision", nargs="+", default=list(PRECISIONS), choices=PRECISIONS)
    parser.add_argument("--height", type=int, default=128)
    parser.add_argument("--width", type=int, default=64)
    options = parser.parse_args()
    print(f"{options.height} x {options.width}, the worst of batches of {', '.join(map(str, BATCHES))}\n")
    names = ["method", "backbone", "weights", "precision", *DIFFERENCES, "top-1", "top-10", "export"]
    print(f"| {' | '.join(names)} |\n|{'---|' * len(names)}")
    for method in options.method:
        for backbone in options.backbone:
            torch.manual_seed(0)
            file = WEIGHTS.get(backbone, Path())
            weights = str(file) if file.is_file() else ""
            with tempfile.TemporaryDirectory() as folder:
                checkpoint = untrained_checkpoint(
                    Path(folder), backbone, options.height, options.width, method, weights
                )
            for precision in options.precision:
                rows = measure_parity(checkpoint, script_models(checkpoint, precision))
                cells = [method, backbone, "ImageNet" if weights else "random", precision, *worst(rows)]
                print(f"| {' | '.join([*cells, verdict(rows, precision)])} |", flush=True)


if __name__ == "__main__":
    main()
