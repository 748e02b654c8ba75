"""Search metrics: seconds and memory of ranking, beside the extraction of the gallery's features, and at scale.

python bench/metrics.py [--queries 10000] [--gallery 100000] [--rounds 3]

First 484 queries of 16 483 images (Market-1501), 128-d embeddings, 30 attributes: distances, ranking and metrics of the
three distances, beside the extraction of the same number of crops by MobileNetV2 at 128 x 64 (measured on `--crops`
rendered ones and scaled up). Then `--queries` of `--gallery` in a process of its own, whose peak of memory is printed
beside what one float32 matrix of that size would take.
"""

import argparse
import multiprocessing
import resource
import time
from statistics import median

import numpy as np
import torch
import torch.nn.functional as F
from tqdm import tqdm

from descry.trainer.backbones import BackboneConfig
from descry.trainer.datasets.persons import PersonDataset
from descry.trainer.evaluation import measure_search
from descry.trainer.extraction import Extracted
from descry.trainer.labels import TrainingLabels
from descry.trainer.methods import ASMR
from descry.trainer.protocols import category_queries
from descry.trainer.retrieval import Fusion
from descry.trainer.schema import AttributeGroup, AttributeSchema

ATTRIBUTES = 30
SCHEMA = AttributeSchema(
    "bench", tuple(AttributeGroup(f"a{index}", ("no", "yes"), "binary", "identity") for index in range(ATTRIBUTES))
)
BATCH = 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--queries", type=int, default=10_000)
    parser.add_argument("--gallery", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--crops", type=int, default=1024)
    options = parser.parse_args()
    print(f"{torch.get_num_threads()} threads")
    ranking = median(measure(484, 16_483)[0] for _ in range(options.rounds))
    extraction = median(extract(options.crops) for _ in range(options.rounds)) * 16_483 / options.crops
    print(
        f"484 x 16483: {ranking:.2f} s; extraction of 16483 crops {extraction:.1f} s; share {ranking / extraction:.3f}"
    )
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        seconds, before, peak = pool.apply(measure, (options.queries, options.gallery))
    matrix = 4 * options.queries * options.gallery / 1e6
    print(
        f"{options.queries} x {options.gallery}: {seconds:.0f} s, {peak - before:.0f} MB above the {before:.0f} MB of "
        f"gallery and method; one matrix of distances takes {matrix:.0f} MB"
    )


def measure(queries: int, gallery: int) -> tuple[float, float, float]:
    """Seconds of all metrics; the process's peak of memory before and after, MB."""
    generator = np.random.default_rng(0)
    categories = np.unique(generator.integers(0, 2, (queries, ATTRIBUTES), dtype=np.uint8), axis=0)
    attributes = categories[np.arange(gallery) % len(categories)]
    method = untrained(categories[:500])
    nobody = np.full(gallery, -1)
    crops = PersonDataset("bench", SCHEMA, ("",) * gallery, attributes, nobody, nobody, np.full(gallery, "test"))
    embeddings = F.normalize(torch.from_numpy(generator.standard_normal((gallery, 128), np.float32)), dim=1)
    scores = torch.from_numpy(generator.random((gallery, ATTRIBUTES), np.float32))
    asked = category_queries(crops, method.categories)
    before, started = peak_of_memory(), time.perf_counter()
    measured, _ = measure_search(method, asked, Extracted(embeddings, scores, crops), Fusion(0.2, 3.0, 1.5))
    seconds = time.perf_counter() - started
    assert all(len(values) == len(asked.attributes) for values in measured.values())
    return seconds, before, peak_of_memory()


def untrained(categories: np.ndarray) -> ASMR:
    """ASMR with MobileNetV2, in evaluation mode."""
    config = ASMR.Config(BackboneConfig("mobilenetv2_100"))
    return ASMR(config, SCHEMA, TrainingLabels.of(categories, SCHEMA)).eval()


@torch.inference_mode()
def extract(count: int) -> float:
    """Seconds of embedding and scoring `count` crops that are in memory already."""
    method = untrained(np.array([[0] * ATTRIBUTES, [1] * ATTRIBUTES], np.uint8))
    images = torch.randint(0, 256, (BATCH, 3, 128, 64), dtype=torch.uint8)
    method.attribute_scores(method.encode_image(images)[1])
    started = time.perf_counter()
    for _ in tqdm(range(count // BATCH), desc="extracting", leave=False):
        method.attribute_scores(method.encode_image(images)[1])
    return (time.perf_counter() - started) * count / (count // BATCH * BATCH)


def peak_of_memory() -> float:
    """The most memory that this process ever held, MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


if __name__ == "__main__":
    main()
