"""The report on real photographs: every distinct test description searched in process and through Triton.

    python bench/pa100k_2000.py CHECKPOINT [--out docs/results]

Writes `pa100k_2000.md` with its figures. The two measurements must agree to 1e-3.
"""

import argparse
import platform
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from tqdm import tqdm

from descry.client import SearchClient, index_folder
from descry.client.serve import TritonServer
from descry.export.__main__ import main as export
from descry.trainer.checkpoint import Checkpoint, load_checkpoint
from descry.trainer.datasets import PersonDataset, load_dataset
from descry.trainer.evaluation import query_distances
from descry.trainer.extraction import extract
from descry.trainer.metrics import attribute_metrics, search_metrics
from descry.trainer.protocols import Queries, category_queries
from descry.trainer.ranked_figure import draw_ranked_grid, ranked_rows
from descry.trainer.retrieval import Fusion, fuse
from descry.trainer.schema import UNKNOWN
from descry.trainer.state import History
from descry.trainer.training_figure import draw_training_curves

METRICS = ("rank1", "rank5", "rank10", "mAP", "mAP_trapezoid")
SHOWN_QUERIES = 10
AGREEMENT = 1e-3


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    options = parser.parse_args()
    checkpoint = load_checkpoint(options.checkpoint)
    persons = load_dataset(checkpoint.config.data).subset("test")
    gallery = extract(checkpoint.method, persons, checkpoint.config.image, Accelerator(cpu=True))
    queries = category_queries(gallery.crops, checkpoint.method.categories)
    fusion = Fusion(**checkpoint.metrics["fusion"])
    par, embedding = query_distances(checkpoint.method, queries, gallery)
    ours = distances_by_name(fusion, par / fusion.max_par, embedding / fusion.max_emb)
    served = {p: through_server(checkpoint, persons, queries, p) for p in ("float32", "bfloat16")}
    tables = {"random": {"random ranking": random_ranking(queries)}}
    tables["in process"] = {name: measure(distances, queries) for name, distances in ours.items()}
    for precision, (par, embedding) in served.items():
        distances = distances_by_name(fusion, par, embedding)
        tables[f"Triton {precision}"] = {name: measure(matrix, queries) for name, matrix in distances.items()}
    disagreement = largest_difference(tables["in process"], tables["Triton float32"])
    if disagreement > AGREEMENT:
        raise SystemExit(f"in process and through Triton differ by {disagreement:g}, more than {AGREEMENT:g}")
    known = gallery.attributes != UNKNOWN
    attributes = attribute_metrics(gallery.scores, gallery.attributes, known)
    fused = distances_by_name(fusion, *served["float32"])["ASMR, fused"]
    draw_ranked_grid(ranked_rows(queries, fused, persons, SHOWN_QUERIES), options.out / "pa100k_2000_grid.jpg")
    draw_training_curves(History(options.checkpoint).read(), options.out / "pa100k_2000_training.png")
    page = report(checkpoint, persons, queries, tables, attributes, disagreement)
    (options.out / "pa100k_2000.md").write_text(page, encoding="utf-8")
    print(page)
    return 0


def distances_by_name(fusion: Fusion, par: torch.Tensor, embedding: torch.Tensor) -> dict[str, torch.Tensor]:
    """The three rankings of the table, from normalised distances [Q, G]."""
    unit = Fusion(fusion.par_weight, 1.0, 1.0)
    return {"PAR head alone": par, "ASMR, embedding alone": embedding, "ASMR, fused": fuse(par, embedding, unit)}


def measure(distances: torch.Tensor, queries: Queries) -> dict[str, dict[str, float]]:
    """Metrics over all, seen and unseen categories."""
    groups = {"all": torch.ones_like(queries.seen), "seen": queries.seen, "unseen": ~queries.seen}
    return {name: search_metrics(distances[rows], queries.relevant[rows]) for name, rows in groups.items()}


def random_ranking(queries: Queries, repeats: int = 200) -> dict[str, dict[str, float]]:
    """Mean metrics of random orders."""
    generator = torch.Generator().manual_seed(0)
    shape = queries.relevant.shape
    runs = [measure(torch.rand(shape, generator=generator), queries) for _ in range(repeats)]
    return {
        group: {name: float(np.mean([run[group][name] for run in runs])) for name in runs[0][group]}
        for group in runs[0]
    }


def through_server(
    checkpoint: Checkpoint, persons: PersonDataset, queries: Queries, precision: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """Export, serve, index the test images, search every description: normalised distances [Q, G] from the answers."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if export([str(checkpoint.directory), "--repository", str(folder / "models"), "--precision", precision]):
            raise SystemExit(f"the export in {precision} failed")
        crops = folder / "crops"
        crops.mkdir()
        for path in persons.images:
            (crops / path.name).symlink_to(path.resolve())
        with (
            TritonServer(
                folder / "models", folder / "gallery.sqlite", grpc_port=0, http_port=0, metrics_port=0
            ) as server,
            SearchClient(server.url, timeout=60) as client,
        ):
            if not index_folder(client, crops).complete:
                raise SystemExit("not every test image was indexed")
            return search_all(client, persons, queries)


def search_all(client: SearchClient, persons: PersonDataset, queries: Queries) -> tuple[torch.Tensor, torch.Tensor]:
    """The two distances of every query and image, as the server reports them with its hits."""
    column = {path.name: index for index, path in enumerate(persons.images)}
    par, embedding = (torch.full(queries.relevant.shape, float("nan")) for _ in range(2))
    for row, category in enumerate(tqdm(queries.attributes.numpy(), desc="searching through Triton")):
        said = {name: "+".join(values) for name, values in persons.schema.decode(category).items()}
        for hit in client.search(said, k=len(persons)):
            par[row, column[hit.id]] = hit.par_distance
            embedding[row, column[hit.id]] = hit.embedding_distance
    if par.isnan().any():
        raise SystemExit("a search did not return the whole gallery")
    return par, embedding


def largest_difference(first: dict, second: dict) -> float:
    """Over all rankings, groups and metrics."""
    return max(
        abs(first[name][group][metric] - second[name][group][metric])
        for name in first
        for group in first[name]
        for metric in METRICS
    )


def report(checkpoint, persons, queries, tables, attributes, disagreement) -> str:
    """The page."""
    stages = ", ".join(f"{stage.name} {stage.epochs} epochs" for stage in checkpoint.config.train.stages)
    data, image = checkpoint.metrics["data"], checkpoint.config.image
    config, fusion = checkpoint.config, checkpoint.metrics["fusion"]
    constants = ", ".join(f"{key} {value:.4g}" for key, value in fusion.items())
    lines = [
        "# PA-100K, the first 2 000 images",
        "",
        "Photographs and labels: PA-100K (Liu et al., HydraPlus-Net, ICCV 2017), CC BY 4.0.",
        f"Images 000001 to 002000, split by category: {data['train']} train, {data['val']} val, {data['test']} test;",
        "half of the held-out images have categories that training never saw.",
        f"Gallery: the {len(persons)} test images. Queries: their {len(queries.attributes)} distinct categories over",
        f"26 attributes, {int(queries.seen.sum())} seen and {int((~queries.seen).sum())} unseen in training.",
        "Relevant: images of exactly that category; no camera filter.",
        "mAP by the rectangle rule, mAP' by the trapezoid rule.",
        "",
        f"Model: ASMR, {config.method_config().backbone.name}, ImageNet weights, {image.height} x {image.width};",
        f"{stages} (mAP on val had stopped rising); weights of the epoch with the best mAP on val;",
        f"seed {config.train.seed}.",
        f"Fusion, measured on val: {constants}.",
        f"Model digest `{checkpoint.model_digest[:16]}`; {platform.machine()}, {torch.get_num_threads()} cores,",
        f"torch {torch.__version__}.",
        "",
        "| measured | ranking | categories | rank-1 | rank-5 | rank-10 | mAP | mAP' |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for where, rankings in tables.items():
        for name, groups in rankings.items():
            for group, metrics in groups.items():
                values = " | ".join(f"{100 * metrics[metric]:.1f}" for metric in METRICS)
                lines.append(f"| {where} | {name} | {group} | {values} |")
    par = ", ".join(f"{name} {100 * attributes[name]:.1f}" for name in ("mA", "accuracy", "precision", "recall", "F1"))
    lines += [
        "",
        f"In process and through Triton (float32) the metrics differ by at most {disagreement:.1e}. Every one of the",
        "descriptions went through `attribute_search`; the rankings follow from the distances that came back.",
        f"PAR head on the test images: {par} (F1: mean over images of each image's F1; threshold 0.5).",
        "",
        "![training](pa100k_2000_training.png)",
        "",
        "Ten queries as Triton ranked them, from the best to the worst average precision in even steps. Green: the",
        "category asked for; red: another, and what differs.",
        "",
        "![ranked grid](pa100k_2000_grid.jpg)",
        "",
        "Reproduce: `accelerate launch trainer/run.py --config trainer/configs/asmr_pa100k_2000.yaml`, then",
        f"`python bench/pa100k_2000.py {checkpoint.directory}`.",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
