"""Searches the database of a workdir for images and prints the best results with their scores.

    delg search --index=runs/quickstart query.jpg --method=all --output=results.jpg
    delg search --index=runs/quickstart --serve

The first command prints a table per image and method. The second serves a local page, until
Ctrl-C, on which you drop an image, draw a box on it, and see the results and their matches.

The score is a similarity; for methods that end in +sp, the number of inliers. For
global+superglobal it is the similarity before re-ranking.
Without --config, the configuration of the features in the workdir is used. Missing features are
extracted first.
"""

import importlib
import importlib.util
import os
import sys
from collections.abc import Sequence

from absl import flags

from delg_jax import configuration
from delg_jax.cli import arguments, stored_config
from delg_jax.errors import UserError
from delg_jax.reports import matches

POSITIONAL = "[IMAGE ...]"


def define_flags(values: flags.FlagValues, argv: list[str]) -> None:
    """Defines the verb's flags."""
    folder = arguments.value_of(argv, "index") or arguments.value_of(argv, "workdir")
    if folder and arguments.value_of(argv, "config") is None:
        stored_config.define(values, argv, configuration.local_path("--workdir", folder))
    else:
        arguments.define_config(values, argv)
    arguments.define_workdir(values)
    flags.DEFINE_alias("index", "workdir", flag_values=values)
    arguments.define_path(values, "image", None, "A query image; the same as IMAGE.")
    flags.DEFINE_string(
        "box", None, "Part of the image to search for: x1,y1,x2,y2 in pixels.", flag_values=values
    )
    text = "global or local search, with or without re-ranking: global, global+sp, "
    text += "global+superglobal, global+qe, global+diffusion, local, local+sp, local+mds, "
    text += "local+mds+global or local+diffusion; several separated by commas, or all."
    flags.DEFINE_string("method", "global", text, flag_values=values)
    flags.DEFINE_integer("top", 10, "Images to print.", flag_values=values)
    text = f"Drawing of query and results to write ({', '.join(matches.FORMATS)})."
    arguments.define_path(values, "output", None, text)
    _define_serving(values)


def _define_serving(values: flags.FlagValues) -> None:
    flags.DEFINE_boolean("serve", False, "Serve a local page instead.", flag_values=values)
    text = "Address of the page; with any but loopback, others can reach it."
    flags.DEFINE_string("host", "127.0.0.1", text, flag_values=values)
    text = "Port of the page; 0 picks a free one."
    flags.DEFINE_integer("port", 8080, text, 0, 65535, flag_values=values)
    text = "Comma-separated host names under which the page may be reached."
    flags.DEFINE_list("allowed_hosts", [], text, flag_values=values)
    text = "Maximum size of an uploaded image."
    flags.DEFINE_float("max_upload_megabytes", 20.0, text, 0.001, flag_values=values)
    text = "Maximum size of an uploaded image in millions of pixels."
    flags.DEFINE_float("max_upload_megapixels", 64.0, text, 0.001, flag_values=values)
    text = "Maximum queued searches; more are refused."
    flags.DEFINE_integer("concurrency", 64, text, 1, flag_values=values)
    text = "Maximum seconds per search on the page, waiting included."
    flags.DEFINE_float("request_seconds", 60.0, text, 0.1, flag_values=values)


def run(values: flags.FlagValues, *pictures: str) -> None:
    """Searches and prints the tables, or serves the page."""
    pictures = (*pictures, *([values.image] if values.image is not None else []))
    with stored_config.of_this_version(values):
        _run(values, pictures)


def _run(values: flags.FlagValues, pictures: Sequence[str]) -> None:
    if values.serve:
        if pictures:
            rule = "cannot be combined with --serve; upload images on the page"
            raise UserError("delg search", " ".join(pictures), rule)
        _serve(values)
    elif not pictures:
        rule = "needs an image (--image or IMAGE), or --serve"
        raise UserError("delg search", None, rule)
    else:
        _search(values, pictures)


def _search(values: flags.FlagValues, paths: Sequence[str]) -> None:
    from delg_jax.reports import result_images
    from delg_jax.retrieval import query, searcher

    config = values.config
    box = None if values.box is None else query.parse_box(values.box)
    if box is not None and len(paths) > 1:
        raise UserError("--box", values.box, "needs exactly one image")
    output = matches.check_path("--output", values.output) if values.output else None
    searcher.check_has_network(config)
    methods = values.method.split(",")
    if values.method == "all":
        methods = searcher.possible_methods(config)
    for method in methods:
        searcher.check_request(method, values.top, config)
    pictures = [query.read_picture("--image", path, config.data) for path in paths]
    opened = searcher.Searcher(config, values.workdir, values.overwrite)
    results = []
    for path, picture in zip(paths, pictures, strict=True):
        query_features = opened.query(picture, box)
        for method in methods:
            hits = opened.search(query_features, method, values.top).hits
            title = method if len(paths) == 1 else f"{path}, {method}"
            if len(paths) * len(methods) > 1:
                print(f"{title}:")
            _print(method, hits)
            results.append((title, picture, hits))
    if output is not None:
        matches.save(result_images.draw_searches(results, box, opened), output)
        print(f"drawing  {output}")


def _print(method: str, hits: Sequence) -> None:
    from delg_jax.reports import tables

    score = "inliers" if method.endswith("+sp") else "score"
    rows = [(str(rank), hit.name, f"{hit.score:.4g}") for rank, hit in enumerate(hits, start=1)]
    print(tables.markdown(("rank", "image", score), rows))


def _serve(values: flags.FlagValues) -> None:
    if importlib.util.find_spec("aiohttp") is None:
        rule = "needs aiohttp: pip install 'delg_jax[serve]'"
        raise UserError("--serve", True, rule)
    from delg_jax.retrieval.searcher import Searcher

    server = importlib.import_module("delg_jax.serving.server")
    limits = server.Limits(
        upload_bytes=int(values.max_upload_megabytes * 2**20),
        waiting=values.concurrency,
        request_seconds=values.request_seconds,
        upload_pixels=int(values.max_upload_megapixels * 1e6),
    )
    listening = server.listen(values.host, values.port)
    with listening:
        searcher = Searcher(values.config, values.workdir, values.overwrite)
        images = len(searcher.source)

        def announce(url: str) -> None:
            print(f"serving {images} images at {url} (Ctrl-C stops)", flush=True)

        hosts = values.allowed_hosts
        if not server.serve(searcher, listening, values.host, hosts, limits, announce):
            # Python would wait for threads that search or build an index
            sys.stdout.flush()
            os._exit(0)
