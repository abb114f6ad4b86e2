"""Finds pictures in the database of a workdir and prints the best images with their scores.

    delg search --index=runs/quickstart query.jpg --method=all --output=results.jpg
    delg search --index=runs/quickstart --serve

The first prints a table for each picture and method. The second opens a local page to drop a
picture, draw a box on it, and see the results with their matches, until Ctrl-C.

The score is what the method ranks by: a similarity, with a method that ends in +sp the number of
inliers; with global+superglobal it is the similarity of the search before.
Without --config, that of the features in the workdir is taken; its network and features are used,
and features are made first if they are not there.
"""

import importlib
import importlib.util
from collections.abc import Callable, Sequence

from absl import flags

from delg_jax import configuration
from delg_jax.cli import arguments, stored_config
from delg_jax.errors import UserError
from delg_jax.reports import matches, tables

POSITIONAL = "[PICTURE ...]"


def define_flags(values: flags.FlagValues, argv: list[str]) -> None:
    """Defines the verb's flags."""
    folder = arguments.value_of(argv, "index") or arguments.value_of(argv, "workdir")
    if folder and arguments.config_path(argv) is None:
        stored_config.define(values, argv, configuration.expand_home("--workdir", folder))
    else:
        arguments.define_config(values, argv)
    arguments.define_workdir(values)
    flags.DEFINE_alias("index", "workdir", flag_values=values)
    arguments.define_path(values, "image", None, "A picture, as PICTURE is.")
    flags.DEFINE_string(
        "box", None, "Part of the picture to look for: x1,y1,x2,y2 in pixels.", flag_values=values
    )
    rule = "global or local search, with or without re-ranking: global, global+sp, "
    rule += "global+superglobal, global+qe, global+diffusion, local, local+sp, local+mds, "
    rule += "local+mds+global or local+diffusion; several with commas between them, or all."
    flags.DEFINE_string("method", "global", rule, flag_values=values)
    flags.DEFINE_integer("top", 10, "Images to print.", flag_values=values)
    rule = f"Drawing of picture and results to write ({', '.join(matches.FORMATS)})."
    arguments.define_path(values, "output", None, rule)
    _define_serving(values)


def _define_serving(values: flags.FlagValues) -> None:
    flags.DEFINE_boolean("serve", False, "Open a local page instead.", flag_values=values)
    text = "Address of the page; another than loopback lets others in."
    flags.DEFINE_string("host", "127.0.0.1", text, flag_values=values)
    flags.DEFINE_integer("port", 8080, "Of the page; 0 = a free one.", 0, 65535, flag_values=values)
    text = "Further names, with commas, under which browsers may ask for the page."
    flags.DEFINE_list("allowed_hosts", [], text, flag_values=values)
    text = "Size of a picture that the page takes, at most."
    flags.DEFINE_float("max_upload_megabytes", 20.0, text, 0.001, flag_values=values)
    text = "Searches that may wait at a time; further ones are refused until some are done."
    flags.DEFINE_integer("concurrency", 64, text, 1, flag_values=values)
    text = "Seconds after which a search of the page is given up."
    flags.DEFINE_float("request_seconds", 60.0, text, 0.1, flag_values=values)


def run(values: flags.FlagValues, *pictures: str) -> None:
    """Searches and prints the tables, or serves the page."""
    pictures = (*pictures, *([values.image] if values.image is not None else []))
    with stored_config.of_this_version(values):
        _run(values, pictures)


def _run(values: flags.FlagValues, pictures: Sequence[str]) -> None:
    if values.serve:
        if pictures:
            rule = "is searched without --serve; the page takes its own"
            raise UserError("delg search", " ".join(pictures), rule)
        _serve(values)
    elif not pictures:
        rule = "needs a picture (--image or PICTURE), or --serve"
        raise UserError("delg search", None, rule)
    else:
        _search(values, pictures)


def _search(values: flags.FlagValues, paths: Sequence[str]) -> None:
    from delg_jax.reports import result_images
    from delg_jax.retrieval import query, searcher

    config = values.config
    box = None if values.box is None else query.parse_box(values.box)
    if box is not None and len(paths) > 1:
        raise UserError("--box", values.box, "is for one picture")
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
        asked = opened.query(picture, box)
        for method in methods:
            hits = opened.search(asked, method, values.top).hits
            title = method if len(paths) == 1 else f"{path}, {method}"
            if len(paths) * len(methods) > 1:
                print(f"{title}:")
            _print(method, hits)
            results.append((title, picture, hits))
    if output is not None:
        matches.save(result_images.draw_searches(results, box, opened), output)
        print(f"drawing  {output}")


def _print(method: str, hits: Sequence) -> None:
    score = "inliers" if method.endswith("+sp") else "score"
    rows = [(str(rank), hit.name, f"{hit.score:.4g}") for rank, hit in enumerate(hits, start=1)]
    print(tables.markdown(("rank", "image", score), rows))


def _serve(values: flags.FlagValues) -> None:
    if importlib.util.find_spec("aiohttp") is None:
        rule = "needs aiohttp, which the extra `serve` of delg_jax installs"
        raise UserError("--serve", True, rule)
    from delg_jax.retrieval.searcher import Searcher

    server = importlib.import_module("delg_jax.serving.server")
    limits = server.Limits(
        upload_bytes=int(values.max_upload_megabytes * 2**20),
        waiting=values.concurrency,
        request_seconds=values.request_seconds,
    )
    listening = server.listen(values.host, values.port)
    with listening:
        searcher = Searcher(values.config, values.workdir, values.overwrite)
        announce = _announce(len(searcher.source))
        server.serve(searcher, listening, values.host, values.allowed_hosts, limits, announce)


def _announce(images: int) -> Callable[[str], None]:
    return lambda place: print(f"serving {images} images at {place} (Ctrl-C ends)", flush=True)
