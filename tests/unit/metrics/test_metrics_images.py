"""FID and Inception Score against a plain computation; similarity and its errors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from unival.errors import CheckpointError, ConfigError, DataError
from unival.metrics import images


@pytest.mark.parametrize(("count", "size"), [(300, 16), (40, 64), (500, 64)])
def test_fid_equals_plain_computation(count: int, size: int) -> None:
    linalg = pytest.importorskip("scipy.linalg")
    rng = np.random.default_rng(count + size)
    a = rng.normal(size=(count, size)) @ rng.normal(size=(size, size)) * 0.3
    b = rng.normal(0.1, 1.2, size=(count + 7, size)) ** 2
    mean_a, mean_b = a.mean(0), b.mean(0)
    cov_a, cov_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    if count > size:
        trace = np.trace(linalg.sqrtm(cov_a @ cov_b)).real
    else:  # sqrtm is inaccurate for singular products; their eigenvalues are not
        trace = np.sqrt(np.clip(linalg.eigvals(cov_a @ cov_b).real, 0, None)).sum()
    plain = ((mean_a - mean_b) ** 2).sum() + np.trace(cov_a) + np.trace(cov_b) - 2 * trace
    # Measured relative difference: 1e-13 for full rank, 1e-8 for singular covariances.
    assert images.fid(a, b) == pytest.approx(plain, rel=1e-6)
    assert images.fid(a, a) == pytest.approx(0.0, abs=1e-6 * np.trace(cov_a))


def test_statistics_from_a_file(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(100, 8)), rng.normal(size=(90, 8))
    mean, cov = images.feature_statistics(b)
    np.savez(tmp_path / "gt.npz", mu=mean, sigma=cov)
    loaded = images.read_statistics(tmp_path / "gt.npz")
    assert images.frechet_distance(*images.feature_statistics(a), *loaded) == pytest.approx(images.fid(a, b))
    for bad in (b"rubbish", b""):
        (tmp_path / "bad.npz").write_bytes(bad)
        with pytest.raises(DataError, match=r"bad\.npz"):
            images.read_statistics(tmp_path / "bad.npz")
    np.savez(tmp_path / "other.npz", x=mean)
    with pytest.raises(DataError, match="mu and sigma"):
        images.read_statistics(tmp_path / "other.npz")


@pytest.mark.parametrize("splits", [1, 3, 10])
def test_inception_score_equals_plain_computation(splits: int) -> None:
    special = pytest.importorskip("scipy.special")
    rng = np.random.default_rng(splits)
    probabilities = special.softmax(rng.normal(0, 2, size=(103, 20)), axis=1)
    plain = []
    for i in range(splits):
        part = probabilities[i * 103 // splits : (i + 1) * 103 // splits]
        plain.append(np.exp(special.rel_entr(part, part.mean(0)).sum(1).mean()))
    mean, spread = images.inception_score(probabilities, splits)
    assert mean == pytest.approx(np.mean(plain), abs=1e-6)
    assert spread == pytest.approx(np.std(plain), abs=1e-6)
    assert images.inception_score(np.eye(5))[0] == pytest.approx(5.0)


def test_similarity_and_precision() -> None:
    texts = np.eye(3)
    assert images.clip_similarity(texts * 4, texts) == pytest.approx(np.ones(3))
    assert images.r_precision(texts, texts) == 1.0
    assert images.r_precision(np.roll(texts, 1, axis=0), texts) == 0.0
    assert images.r_precision(np.ones((3, 3)), texts) == 0.0


def test_errors_name_the_problem(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"N >= 2"):
        images.fid(np.ones((1, 4)), np.ones((3, 4)))
    with pytest.raises(DataError, match="finite"):
        images.fid(np.full((3, 4), np.nan), np.ones((3, 4)))
    with pytest.raises(DataError, match="different extractors"):
        images.fid(np.ones((3, 4)), np.ones((3, 5)))
    with pytest.raises(DataError, match="add up to 1"):
        images.inception_score(np.ones((3, 4)))
    with pytest.raises(ConfigError, match="splits=9"):
        images.inception_score(np.eye(3), 9)
    with pytest.raises(DataError, match="do not pair"):
        images.clip_similarity(np.ones((2, 3)), np.ones((3, 3)))
    with pytest.raises(DataError, match="no images"):
        images.extract_features([], lambda batch: batch)
    with pytest.raises(CheckpointError, match="nothing is downloaded"):
        images.ClipScorer(tmp_path / "absent.pt")
    (tmp_path / "w.pt").write_bytes(b"abc")
    assert images.file_hash(tmp_path / "w.pt").startswith("ba7816bf")


def test_features_from_any_extractor() -> None:
    torch = pytest.importorskip("torch")
    batches = [torch.ones(2, 3, 4, 4), torch.zeros(1, 3, 4, 4)]
    features = images.extract_features(batches, lambda batch: batch.mean(dim=(2, 3)))
    assert features.shape == (3, 3) and features[:, 0].tolist() == [1.0, 1.0, 0.0]
