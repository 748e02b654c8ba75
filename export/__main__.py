"""Export a checkpoint to a Triton model repository.

python -m descry.export CHECKPOINT --repository DIR [--precision auto|float32|bfloat16]
"""

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

from descry.export.parity import ParityError, check_parity, format_parity, measure_parity
from descry.export.repository import RepositoryError, write_repository
from descry.export.scripted import PRECISIONS, script_models
from descry.trainer.checkpoint import CheckpointError, load_checkpoint, write_atomically
from descry.trainer.config import ConfigError
from descry.trainer.machine import has_native_bfloat16
from descry.trainer.schema import SchemaError


def choose_precision(asked: str) -> str:
    """`auto` becomes bfloat16 where this machine multiplies it natively, else float32."""
    return ("bfloat16" if has_native_bfloat16() else "float32") if asked == "auto" else asked


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; 0, or 1 with a message when nothing was exported."""
    parser = argparse.ArgumentParser(
        prog="python -m descry.export", description="Export a checkpoint to a Triton model repository."
    )
    parser.add_argument("checkpoint", type=Path, help="the folder that training wrote")
    parser.add_argument("--repository", type=Path, required=True, help="where to write; an existing one is updated")
    parser.add_argument("--precision", default="auto", choices=("auto", *PRECISIONS), help="of the image backbone")
    options = parser.parse_args(arguments)
    precision = choose_precision(options.precision)
    try:
        checkpoint = load_checkpoint(options.checkpoint)
        models = script_models(checkpoint, precision)
        rows = measure_parity(checkpoint, models)
        check_parity(rows, precision)
        write_repository(checkpoint, models, options.repository)
    except (CheckpointError, ConfigError, SchemaError, ParityError, RepositoryError, OSError) as error:
        print(f"export: {error}", file=sys.stderr)
        return 1
    report = {"precision": precision, "model_digest": checkpoint.model_digest, "rows": [asdict(row) for row in rows]}
    write_atomically(options.checkpoint / "parity.json", (json.dumps(report, indent=2) + "\n").encode())
    print(f"parity, eager float32 against TorchScript {precision} (largest difference, ranking agreement)")
    print(format_parity(rows))
    print(f"next: descry serve --repository {options.repository} --gallery gallery/gallery.sqlite", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
