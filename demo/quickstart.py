"""The whole path in one command: synthetic people, training, export, Triton, index, search, a picture of the hits.

    python -m descry.demo.quickstart [--folder runs/quickstart] [--page]

Every step is a command that a user can type; a step whose result is there already is not done again. With `--page` the
gallery is then opened on the search page, with probabilities, a map and the model's card.
"""

import argparse
import json
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

from descry.client.serve import TritonServer
from descry.client.triton_wheel import ServerError

CONFIG = Path("trainer/configs/asmr_synthetic.yaml")
CROPS = Path("data/synthetic")
CHECKPOINT = Path("runs/asmr_synthetic")
SEARCHES = {
    "red_top": ["gender=female", "upper_color=red", "hair_length=long"],
    "hat_and_shorts": ["hat=yes", "lower_kind=shorts"],
    "backpack": ["bag=backpack", "upper_color=blue", "gender=male"],
}


def main(arguments: list[str] | None = None) -> int:
    """Run all steps; 0, or 1 with the step that failed."""
    parser = argparse.ArgumentParser(description="Train, export, serve, index and search, on synthetic people.")
    parser.add_argument("--folder", type=Path, default=Path("runs/quickstart"), help="where results go (%(default)s)")
    parser.add_argument("--page", action="store_true", help="open the search page on the gallery, until it is stopped")
    options = parser.parse_args(arguments)
    folder = options.folder
    started = time.monotonic()
    folder.mkdir(parents=True, exist_ok=True)
    repository, gallery = folder / "models", folder / "gallery.sqlite"
    try:
        _train()
        if options.page:
            _measure(folder)
        else:
            _run("descry.trainer.evaluate", CHECKPOINT, "--split", "test")
        _run("descry.export", CHECKPOINT, "--repository", repository)
        _say(f"descry serve --repository {repository} --gallery {gallery}")
        with TritonServer(repository, gallery, grpc_port=0, http_port=0, metrics_port=0, progress=_say) as server:
            _search(server.url, folder)
            if options.page:
                return _open_page(server.url, folder)
    except (subprocess.CalledProcessError, ServerError) as error:
        print(f"quickstart: {error}", file=sys.stderr)
        return 1
    _say(f"done in {time.monotonic() - started:.0f} s; the pictures are {', '.join(map(str, _pictures(folder)))}")
    _say(
        "try next, in one shell and then in another:\n"
        f"  . .venv/bin/activate && descry serve --repository {repository} --gallery {gallery}\n"
        f"  descry search gender=male upper_color=green hat=unknown -k 10 --grid green.png --images {CROPS}\n"
        "  descry describe data/synthetic/images/$(ls data/synthetic/images | head -1)\n"
        f"  python -m descry.demo --images {CROPS}"
    )
    return 0


def _train() -> None:
    if (CHECKPOINT / "model.safetensors").is_file():
        return _say(f"{CHECKPOINT} is trained already")
    # Left to itself, `accelerate launch` gives a process one thread.
    launch = ["--num_processes", "1", "--num_cpu_threads_per_process", str(os.cpu_count() or 1)]
    launch += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
    script = ["trainer/run.py", "--config", str(CONFIG), "--resume"]
    _say(shlex.join(["accelerate", "launch", *launch[2:4], *script]))
    command = [sys.executable, "-m", "accelerate.commands.launch", *launch, *script]
    subprocess.run(command, check=True)


def _measure(folder: Path) -> None:
    """What the page says of the model: probabilities, and how good it is."""
    if "calibration" not in json.loads((CHECKPOINT / "metrics.json").read_text(encoding="utf-8")):
        _run("descry.trainer.calibrate", CHECKPOINT, "--store")
    evaluation = folder / "evaluation.json"
    if not evaluation.is_file():
        command = ["-m", "descry.trainer.evaluate", str(CHECKPOINT), "--split", "test", "--json"]
        _say(f"{shlex.join(['python', *command])} > {evaluation}")
        found = subprocess.run([sys.executable, *command], check=True, stdout=subprocess.PIPE)
        evaluation.write_bytes(found.stdout)


def _open_page(url: str, folder: Path) -> int:
    """Serve the page until it is stopped."""
    _run("descry.demo.map", "--url", url, "--out", folder / "map.npz")
    try:
        given = ("--map", folder / "map.npz", "--evaluation", folder / "evaluation.json", "--open")
        _run("descry.demo", "--url", url, "--images", CROPS, *given)
    except KeyboardInterrupt:
        _say("stopped")
    return 0


def _search(url: str, folder: Path) -> None:
    _run("descry.client", "index", CROPS, "--labels", CROPS / "labels.csv", "--url", url)
    _run("descry.client", "stats", "--url", url)
    for (_, statements), picture in zip(SEARCHES.items(), _pictures(folder), strict=True):
        _run("descry.client", "search", *statements, "-k", "12", "--grid", picture, "--images", CROPS, "--url", url)


def _pictures(folder: Path) -> list[Path]:
    return [folder / f"{name}.png" for name in SEARCHES]


def _run(module: str, *arguments: str | Path) -> None:
    command = ["-m", module, *map(str, arguments)]
    shown = shlex.join(["descry", *command[2:]] if module == "descry.client" else ["python", *command])
    _say(shown)
    subprocess.run([sys.executable, *command], check=True)


def _say(line: str) -> None:
    print(f"\n» {line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
