"""The feature store: a folder of chunks, each written whole, in the order of the images."""

import json
import pathlib
import zipfile

import numpy as np

from delg_jax import workdir
from delg_jax.errors import UserError
from delg_jax.features.extractor import Features
from delg_jax.features.local_features import LocalFeatures
from delg_jax.features.pca import Pca

_LOCAL = ("locations", "scales", "scores", "descriptors")


class FeatureStore:
    """Features of N images in chunks of `.npz`, local features without padding.

    Args:
      folder: of the store; must exist.
      names: of all images, in order. None reads them from a finished store.
      chunk_images: images in a chunk.

    Raises:
      UserError: if a finished store is expected and there is none.
    """

    def __init__(
        self, folder: pathlib.Path, names: list[str] | None = None, chunk_images: int = 64
    ) -> None:
        self.folder = folder
        self.names = names if names is not None else self._index()["names"]
        self.chunk_images = chunk_images if names is not None else self._index()["chunk_images"]
        self._cache: dict[str, np.ndarray] | None = None

    def __len__(self) -> int:
        """Number of images."""
        return len(self.names)

    @property
    def chunks(self) -> list[range]:
        """Image indices of each chunk."""
        count, size = len(self.names), self.chunk_images
        return [range(start, min(start + size, count)) for start in range(0, count, size)]

    def missing(self) -> list[int]:
        """Numbers of the chunks that have not been written."""
        return [n for n in range(len(self.chunks)) if not self._path(n).is_file()]

    def write(self, number: int, rows: list[Features | str], dtype: str) -> None:
        """Writes one chunk.

        Args:
          number: of the chunk.
          rows: for each image its features, or the reason why it was skipped; a global descriptor
            of length 0, or `local` None, stands for features that no image has.
          dtype: of the local descriptors on disk.
        """
        good = [row for row in rows if isinstance(row, Features)]
        counts = [
            int(row.local.mask.sum()) if isinstance(row, Features) and row.local else 0
            for row in rows
        ]
        width = len(good[0].global_descriptor) if good else 0
        arrays = {
            "global": np.zeros((len(rows), width), np.float32),
            "skipped": np.array(["" if isinstance(r, Features) else r for r in rows]),
            "counts": np.array(counts, np.int32),
        }
        for index, row in enumerate(rows):
            if isinstance(row, Features):
                arrays["global"][index] = row.global_descriptor
        for name in _LOCAL:
            parts = [getattr(r.local, name)[r.local.mask] for r in good if r.local is not None]
            if parts:
                arrays[name] = np.concatenate(parts)
        if "descriptors" in arrays:
            arrays["descriptors"] = arrays["descriptors"].astype(dtype)
        workdir.write_arrays(self._path(number), arrays)

    def finish(self) -> None:
        """Declares the store whole."""
        content = {"names": self.names, "chunk_images": self.chunk_images}
        workdir.write_json(self.folder / "index.json", content)

    def is_whole(self) -> bool:
        """Whether every chunk and the index are there."""
        return (self.folder / "index.json").is_file() and not self.missing()

    def skipped(self) -> dict[str, str]:
        """Names of the images that could not be used, with the reasons."""
        reasons = self._load()["skipped"]
        return {name: str(why) for name, why in zip(self.names, reasons, strict=True) if why}

    def global_descriptors(self) -> np.ndarray:
        """Reads the global descriptors.

        Returns:
          float32 [N, D], unit norm; a skipped image has zeros.

        Raises:
          UserError: if the store was made without global descriptors.
        """
        data = self._load()
        if not data["global"].shape[1] and not all(data["skipped"]):
            rule = (
                "holds no global descriptors; set config.extract.imported_global, or compute them"
            )
            raise UserError("feature store", str(self.folder), rule)
        return data["global"]

    def local_features(self, count: int) -> LocalFeatures:
        """Reads the strongest features of every image.

        Args:
          count: K, features per image at most; 0 for as many as the fullest image has.

        Returns:
          LocalFeatures [N, K] as NumPy, descriptors as on disk.

        Raises:
          UserError: if the store was made without local features.
        """
        data = self._load()
        if "descriptors" not in data:
            rule = "holds no local features; extract with config.model.local_head=True, or set "
            rule += "config.extract.imported_local"
            raise UserError("feature store", str(self.folder), rule)
        counts = data["counts"]
        fullest = max(counts.max(), 1)
        mask = np.arange(min(count or fullest, fullest))[None, :] < counts[:, None]
        starts = np.cumsum(counts) - counts
        kept = np.arange(counts.sum()) - np.repeat(starts, counts) < mask.shape[1]
        fields = []
        for name in _LOCAL:
            field = np.zeros((*mask.shape, *data[name].shape[1:]), data[name].dtype)
            field[mask] = data[name][kept]
            fields.append(field)
        return LocalFeatures(*fields, mask=mask)

    def write_pca(self, pca: Pca) -> None:
        """Keeps the projection that this store's descriptors went through."""
        workdir.write_arrays(self.folder / "pca.npz", pca._asdict())

    def read_pca(self) -> Pca | None:
        """The projection kept by `write_pca`, or None."""
        path = self.folder / "pca.npz"
        if not path.is_file():
            return None
        with np.load(path) as data:
            return Pca(data["mean"], data["matrix"])

    def _path(self, number: int) -> pathlib.Path:
        return self.folder / f"chunk_{number:06d}.npz"

    def _index(self) -> dict:
        try:
            return json.loads((self.folder / "index.json").read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            rule = "must be a finished store; delg extract makes one"
            raise UserError("feature store", str(self.folder), rule) from error

    def _load(self) -> dict[str, np.ndarray]:
        if self._cache is None:
            parts: dict[str, list[np.ndarray]] = {}
            for number in range(len(self.chunks)):
                for name, array in _read_chunk(self._path(number)).items():
                    parts.setdefault(name, []).append(array)
            parts["global"] = _same_width(parts.get("global", []))
            self._cache = {name: np.concatenate(arrays) for name, arrays in parts.items()}
        return self._cache


def _read_chunk(path: pathlib.Path) -> dict[str, np.ndarray]:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as data:
            return dict(data)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        rule = f"cannot be read ({error}); delete it, and delg extract makes it again"
        raise UserError("feature store", str(path), rule) from error


def _same_width(parts: list[np.ndarray]) -> list[np.ndarray]:
    """Chunks whose images were all skipped know no width; they get that of the others."""
    width = max((part.shape[1] for part in parts), default=0)
    return [part if part.shape[1] else np.zeros((len(part), width), np.float32) for part in parts]
