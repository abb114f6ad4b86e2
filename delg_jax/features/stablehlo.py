"""Export of the network, its weights and the whole extraction as one StableHLO file.

It runs without this package, with jax, numpy and flatbuffers, on a CPU, GPU or TPU:

    exported = jax.export.deserialize(bytearray(open("model.stablehlo", "rb").read()))
    canvas = np.zeros(exported.in_avals[0].shape, np.uint8)
    canvas[: picture.shape[0], : picture.shape[1]] = picture
    features = exported.call(canvas, np.array(picture.shape[:2], np.int32))

`picture` is uint8 [H, W, 3], RGB. Shrink an image that is larger than the canvas first, and divide
locations and scales by new size / old size. `exported.call` can be used inside `jax.jit`.
"""

import contextlib
import importlib.util
import pathlib
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import ml_collections
import numpy as np

from delg_jax import configuration
from delg_jax.errors import UserError, require_choice
from delg_jax.features import extractor, pyramid, pyramid_level, selection
from delg_jax.features.experiment import sections
from delg_jax.features.image_sets import store_folder
from delg_jax.features.network import Network, check
from delg_jax.features.pca import Pca
from delg_jax.features.pyramid_level import ExtractionSettings
from delg_jax.features.store import FeatureStore
from delg_jax.models.delg import Delg
from delg_jax.workdir import FORMAT, Output, replacing, root_of, write_json

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")
Outputs = dict[str, jax.Array]


def export_model(
    config: ml_collections.ConfigDict,
    workdir: str | pathlib.Path,
    output: str | pathlib.Path,
    canvas: tuple[int, int] | None = None,
    platforms: tuple[str, ...] = ("cpu", "cuda", "tpu"),
    overwrite: bool = False,
) -> pathlib.Path:
    """Exports the network that `extract` would use, with its description as `.json`.

    Args:
      config: the whole tree; scales, threshold and number of features become constants.
      workdir: whose checkpoints, and features of the database if `pca_dim` is set, are read.
      output: the file to write.
      canvas: height and width of the largest image; None for a square of
        `config.extract.max_size`. Every image costs as much as one that fills the canvas.
      platforms: to run on, of `PLATFORMS`.
      overwrite: whether an existing file is replaced.

    Returns:
      The file.

    Raises:
      UserError: for a wrong argument or configuration, or weights that cannot be used.
    """
    output, root = pathlib.Path(output), root_of(workdir)
    check(config.extract)
    _check_can_write(output, overwrite)
    platforms = tuple(dict.fromkeys(platforms))
    for platform in platforms or ("",):
        require_choice("platforms", platform, PLATFORMS)
    canvas = _checked_canvas(canvas, config.extract.max_size, config.extract.shape_step)
    network = Network(config, root)
    model = network.extractor
    pca = _stored_pca(config, root, network.weights) if model.module.local_head else None
    function = extraction(model.module, model.variables, model.settings, canvas, pca)
    image = jax.ShapeDtypeStruct((*canvas, 3), np.uint8)
    size = jax.ShapeDtypeStruct((2,), np.int32)
    with _without_source_lines():
        exported = jax.export.export(jax.jit(function), platforms=platforms)(image, size)
    description = _describe(exported, config, canvas, network.weights)
    _write(output, exported.serialize(), description)
    return output


@contextlib.contextmanager
def _without_source_lines() -> Iterator[None]:
    """Lowers without paths of this machine and lines of the caller: equal networks, equal files."""
    none = {"jax_include_full_tracebacks_in_locations": True, "jax_traceback_in_locations_limit": 0}
    before = {name: jax.config.values[name] for name in none}
    try:
        for name, value in none.items():
            jax.config.update(name, value)
        yield
    finally:
        for name, value in before.items():
            jax.config.update(name, value)


def extraction(
    module: Delg,
    variables: Any,
    settings: ExtractionSettings,
    canvas: tuple[int, int],
    pca: Pca | None = None,
) -> Callable[[jax.Array, jax.Array], Outputs]:
    """Returns the extraction of one image as a pure function with constant weights.

    Args:
      module: the network.
      variables: its parameters and BatchNorm statistics.
      settings: scales, limits and precision.
      canvas: height and width of the largest image.
      pca: projection of the local descriptors, or None.

    Returns:
      Function of an image uint8 `[*canvas, 3]`, at the top left of its canvas, and of its height
      and width int32 [2]. It returns the features of an `Extractor`: `global_descriptor` [D] and,
      for a network with a local head, the fields of `LocalFeatures` [max_features] by name.
    """
    module = extractor.adapted(module, settings)

    def extract(image: jax.Array, size: jax.Array) -> Outputs:
        """Extracts from the part `size` of `image`."""
        size = jnp.clip(size, 1, np.asarray(canvas, np.int32))
        descriptors, found = [], []
        for scale, count, pooled in pyramid_level.plan(module, settings):
            shape = pyramid.canvas_shape(pyramid.scaled_size(canvas, scale), settings.shape_step)
            target = _scaled(size, canvas, scale)[None]
            images = pyramid.resize(image[None], size[None], target, shape)
            result = pyramid_level.extract_level(
                module,
                variables,
                pca,
                images,
                target,
                count,
                pooled,
                float(settings.attention_threshold),
                settings.nms_radius,
            )
            if pooled:
                descriptors.append(result.global_descriptor[0])
            if count:
                place = (shape, module.conv4_stride, scale, module.first_centre)
                found.append(pyramid_level.local_features(result, 0, *place))
        outputs: dict[str, Any] = {
            "global_descriptor": pyramid_level.pool_scales(descriptors, settings.scale_pooling)
        }
        if found:
            outputs |= selection.merge(found, settings.max_features)._asdict()
        return outputs

    return extract


def _scaled(size: jax.Array, canvas: tuple[int, int], scale: float) -> jax.Array:
    """`pyramid.scaled_size` of a traced size, from a table, so that all devices round alike."""
    sides = range(max(canvas) + 1)
    return jnp.take(
        np.array([pyramid.scaled_size((n, n), scale)[0] for n in sides], np.int32), size
    )


def _check_can_write(output: pathlib.Path, overwrite: bool) -> None:
    if output.is_dir():
        raise UserError("output", str(output), "must be a file, not a folder")
    if output.exists() and not overwrite:
        raise UserError("output", str(output), "exists; --overwrite replaces it")
    if importlib.util.find_spec("flatbuffers") is None:  # jax needs it but does not install it
        rule = "needs a package that is not installed: pip install flatbuffers"
        raise UserError("output", str(output), rule)


def _checked_canvas(
    canvas: tuple[int, int] | None, max_size: int, shape_step: int
) -> tuple[int, int]:
    if canvas is None and not max_size:
        rule = "must be given (ROWSxCOLUMNS), because config.extract.max_size = 0 sets no limit"
        raise UserError("canvas", None, rule)
    if canvas is None:
        return pyramid.canvas_shape((max_size,) * 2, shape_step)
    if len(canvas) != 2 or min(canvas) < 1:
        raise UserError("canvas", canvas, "must be rows and columns, each at least 1")
    return canvas


def _stored_pca(config: ml_collections.ConfigDict, root: pathlib.Path, weights: str) -> Pca | None:
    """The projection that was fitted when the database was extracted, if there is one."""
    if not config.extract.pca_dim:
        return None
    folder = store_folder(root, config.data.name, "database")
    pca = FeatureStore(folder).read_pca()
    # Refuses a projection that belongs to other weights or data
    Output.of(folder, config, sections(config), {"weights": weights}).claim()
    if pca is None:
        rule = f"needs the projection in features/{folder.name}; delg extract makes it"
        raise UserError("config.extract.pca_dim", config.extract.pca_dim, rule)
    return pca


def _describe(
    exported: jax.export.Exported,
    config: ml_collections.ConfigDict,
    canvas: tuple[int, int],
    weights: str,
) -> dict[str, Any]:
    def shapes(names, values) -> dict[str, Any]:
        return {
            name: {"shape": list(value.shape), "dtype": value.dtype.name}
            for name, value in zip(names, values, strict=True)
        }

    outputs = jax.tree.unflatten(exported.out_tree, exported.out_avals)
    return {
        "format": FORMAT,
        "inputs": shapes(("image", "size"), exported.in_avals),
        "outputs": shapes(outputs, outputs.values()),
        "canvas": list(canvas),
        "local_scales": list(config.extract.local_scales) if config.model.local_head else [],
        "global_scales": list(config.extract.global_scales),
        "platforms": list(exported.platforms),
        "weights": weights,
        "config": configuration.flatten(config, ("model", "extract")),
        "jax": jax.__version__,
        "calling_convention_version": exported.calling_convention_version,
    }


def _write(output: pathlib.Path, content: bytearray, description: dict[str, Any]) -> None:
    try:
        with replacing(output) as temporary:
            temporary.write_bytes(content)
            description = {**description, "crc32": f"{zlib.crc32(content):08x}"}  # of the file
            write_json(output.with_name(f"{output.name}.json"), description)
    except OSError as error:
        rule = f"must be a file that can be written ({error.strerror})"
        raise UserError("output", str(output), rule) from error
