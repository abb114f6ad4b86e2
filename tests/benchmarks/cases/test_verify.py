import numpy as np
import pytest

from delg_jax.benchmarks.cases import verify


@pytest.mark.parametrize(("peer", "package"), [("opencv", "cv2"), ("official", "skimage")])
def test_peers_find_about_as_many_inliers(peer, package):
    pytest.importorskip(package, reason="the peer")
    numbers = {"pairs": 2, "peer_pairs": 2, "slow_pairs": 2, "pair_block": 2}
    comparison = verify.compare(np.random.default_rng(0), **numbers, features=120, dim=32)
    ours, theirs = comparison.ours.call(), comparison.peers[peer]().call()
    # Of 120 features every sixth lies on the transformation, 20, and some by chance
    assert (ours >= 20).all()
    np.testing.assert_allclose(theirs, ours, atol=3)
