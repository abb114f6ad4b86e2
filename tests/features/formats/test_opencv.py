"""Features of a real foreign system, SIFT of OpenCV, through a file to the local search."""

import numpy as np
import pytest

from delg_jax.evaluation import evaluate
from delg_jax.features import extract
from delg_jax.retrieval import methods
from delg_jax.search.engine_choice import SearchSettings
from tests.photographs import make_revisited
from tests.tiny import retrieval_config

cv2 = pytest.importorskip("cv2", reason="SIFT needs OpenCV")
h5py = pytest.importorskip("h5py", reason="HDF5 files need h5py")


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    root = make_revisited(tmp_path_factory.mktemp("sift"))
    sift = cv2.SIFT_create(nfeatures=150)
    with h5py.File(root / "sift.h5", "w") as file:
        for path in sorted((root / "jpg").iterdir()):
            picture = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
            points, descriptors = sift.detectAndCompute(picture, None)
            group = file.create_group(f"jpg/{path.name}")
            group["keypoints"] = np.array([point.pt for point in points], np.float16)
            group["scores"] = np.array([point.response for point in points])
            group["scales"] = np.array([point.size for point in points])
            group["descriptors"] = descriptors.T
            group["image_size"] = picture.shape[::-1]
    config = retrieval_config(root).copy_and_resolve_references().unlock()
    config.extract.imported_local = str(root / "sift.h5")
    config.extract.max_features = 100
    config.search.threshold = 0.9  # SIFT has no negative values, so all its cosines are large
    config.eval.methods = ("local", "local+mds")
    return config.lock()


def test_both_views_of_the_place_are_found_and_itself_first(config, tmp_path):
    extracted = extract(config, tmp_path)
    assert extracted.database.local_features(0).descriptors.shape[2] == 128
    ranking = methods.rank_locally(extracted, SearchSettings.of(config.search))
    assert ranking.images[:, :2].tolist() == [[2 * place, 2 * place + 1] for place in range(4)]
    np.testing.assert_allclose(ranking.similarities[:, 0], 1, atol=1e-2)
    assert (ranking.similarities[:, 2] < 0.5).all()


def test_metrics_are_perfect(config, tmp_path):
    for table in evaluate(config, tmp_path)["methods"].values():
        assert table["medium"]["map"] == 100
