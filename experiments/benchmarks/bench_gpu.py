"""Runs one benchmark on a GPU machine, with a trace; needs no packages for data sets.

    python -m experiments.benchmarks.bench_gpu check
    python -m experiments.benchmarks.bench_gpu verify --size=gpu --out=DIR --trace

`check` compares the kernels on this device with NumPy in double precision and exits with status 1
if they differ. Any other name is a case of `delg bench`: writes bench_NAME.json into DIR and, with
--trace, a profile of one call of ours into DIR/trace_NAME. `bench_gpu.sh` runs all of them.
"""

import argparse
import json
import pathlib
import sys

from experiments.benchmarks import optional_packages

MISSING = optional_packages.install_empty_modules()

import jax  # noqa: E402 - after the empty modules are installed
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402

from delg_jax.benchmarks import bench  # noqa: E402
from delg_jax.benchmarks.cases import vectors  # noqa: E402
from delg_jax.benchmarks.peers import libraries  # noqa: E402
from delg_jax.reports import benchmarks as tables  # noqa: E402
from delg_jax.rerank.mds_solvers import classical_mds  # noqa: E402
from delg_jax.search import SimilarityKernel, descriptor_similarity, global_search, local_search  # noqa: E402

_TOLERANCE = 1e-4


def check() -> dict[str, float]:
    """Compares each kernel with NumPy in double precision.

    Returns:
      By kernel the largest difference; for global search the share of images that differ, for MDS
      the difference of inner products of points.
    """
    rng = np.random.default_rng(0)
    database, queries = vectors.unit(rng, 3000, 256), vectors.unit(rng, 5, 256)
    found = global_search.search(queries, jax.device_put(database), 20)[1]
    expected = libraries.top_k(queries.astype(float), database.astype(float), 20)
    kernel = SimilarityKernel("identity")
    asked, images = vectors.places(rng, 3, 40, 30, 64, views=4)
    masks = [np.ones(side.shape[:2], bool) for side in (asked, images)]
    products = np.einsum("qkd,nfd->qknf", asked.astype(float), images.astype(float))
    chamfer = products.max(axis=3).mean(axis=1)
    local = local_search.similarity(asked, masks[0], images, masks[1], kernel)
    signs = [np.where(side > 0, 1.0, -1.0) for side in (asked, images)]
    of_signs = np.einsum("qkd,nfd->qknf", *signs).max(axis=3).mean(axis=1) / 64
    packed = [np.asarray(descriptor_similarity.binarize(side)) for side in (asked, images)]
    by_bits = [
        local_search.similarity(packed[0], masks[0], packed[1], masks[1], kernel, hamming=way)
        for way in descriptor_similarity.HAMMING
    ]
    points = vectors.unit(rng, 60, 8)
    distances = np.linalg.norm(points[:, None] - points[None], axis=2).astype(np.float32)
    embedded = np.asarray(classical_mds(jnp.asarray(distances), 8), float)
    theirs = libraries.classical_mds(distances.astype(float), 8)
    return {
        "global": float((found != expected).mean()),
        "local": float(np.abs(local - chamfer).max()),
        **{
            f"binary, {way}": float(np.abs(side - of_signs).max())
            for way, side in zip(descriptor_similarity.HAMMING, by_bits, strict=True)
        },
        "mds": float(np.abs(embedded @ embedded.T - theirs @ theirs.T).max()),
    }


def run(name: str, size: str, repeats: int, out: pathlib.Path, trace: bool) -> None:
    """Runs one case, prints its table, and writes its result and a trace of one call."""
    case = bench.load(name)
    if size == "gpu" and "gpu" not in case.sizes:
        size = "standard"
    result = bench.bench(name, repeats, size)
    print(tables.benchmark_table(result), tables.roofline_line(result), sep="\n", flush=True)
    out.mkdir(parents=True, exist_ok=True)
    (out / f"bench_{name}.json").write_text(json.dumps(result, indent=1))
    if trace:
        ours = case.compare(np.random.default_rng(0), **case.sizes[size]).ours
        ours.call()
        with jax.profiler.trace(str(out / f"trace_{name}")):
            ours.call()


def main(argv: list[str]) -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("name", choices=("check", *bench.CASE_MODULES))
    parser.add_argument("--size", default="gpu")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("."))
    parser.add_argument("--trace", action="store_true")
    given = parser.parse_args(argv)
    if given.name != "check":
        run(given.name, given.size, given.repeats, given.out, given.trace)
        return 0
    found = check()
    print(f"{jax.devices()[0].device_kind}; packages not installed: {', '.join(MISSING) or 'none'}")
    print(*(f"{kernel}: {value:.2g}" for kernel, value in found.items()), sep="\n", flush=True)
    return int(max(found.values()) > _TOLERANCE)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
