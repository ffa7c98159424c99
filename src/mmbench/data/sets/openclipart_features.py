"""Open Clip Art as feature vectors: the track on which missing modalities are compared, as the papers do on IEMOCAP features."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mmbench.data.cache import path_of, read_or_make
from mmbench.data.sets.openclipart import OpenClipart
from mmbench.data.split import Loaded
from mmbench.errors import StoreError
from mmbench.machine import installed_version

WIDTH = 128
VERSION = 1
"""Raised when the features change while the shipped file does not."""


class OpenClipartFeatures(OpenClipart):
    """Each modality of ``openclipart`` as 128 numbers, fitted on the training split without its labels.

    ``image``: the leading principal components of the pixels. ``title`` and ``tags``: TF-IDF of words and of character trigrams,
    reduced by truncated singular value decomposition (latent semantic analysis). A modality's numbers are divided by one constant,
    so that their mean square over the training split is 1: the leading components stay the largest.

    Samples, splits, folds, groups and natural gaps are those of ``openclipart``. The features are made before any mask is drawn, as
    pre-extracted features are; nothing of the validation and test splits enters them. They are kept (``mmbench.data.cache``).

    Inputs: (B, 128) float32 for every modality; zero where tags are absent.
    """

    name = "openclipart_features"
    text_modalities = ()
    # Dropout was chosen on the clean validation split (experiments/missing_rates.yaml).
    encoders = {modality: {"name": "mlp", "dropout": 0.5} for modality in ("image", "title", "tags")}
    augmentations = {}
    feature_dims = {"image": WIDTH, "title": WIDTH, "tags": WIDTH}

    @classmethod
    def manifest(cls) -> str:
        """The hash of the shipped file, and the version of the recipe that makes features of it."""
        return f"{super().manifest()}-features-{VERSION}"

    def load(self) -> Loaded:
        """Apply to all samples the features that are fitted to the training split."""
        data = self.read()
        rows = self.rows(data)
        packages = [installed_version(package) for package in ("numpy", "scipy", "scikit-learn")]
        digests = [sha256(part).hexdigest() for part in (rows[0].tobytes(), Path(__file__).read_bytes())]
        key = " ".join([self.manifest(), *packages, *digests])
        return self.cut(data, {m: self.vectors(m, data[m], rows[0], f"{key} {m}") for m in self.modalities}, rows)

    def vectors(self, modality: str, raw: np.ndarray, train: np.ndarray, key: str) -> Tensor:
        """The vectors (N, 128) of N raw inputs, fitted to the rows ``train``; kept for other trials, where that is possible."""
        try:
            return read_or_make(path_of(key), (len(raw), WIDTH), lambda: fitted(modality, raw, train))
        except (OSError, StoreError) as error:
            print(f"{self.name}: features of {modality} are fitted for this trial alone: {error}", flush=True)
            return fitted(modality, raw, train)


def fitted(modality: str, raw: np.ndarray, train: np.ndarray) -> Tensor:
    """The vectors (N, 128) of N pictures or texts, fitted to the rows ``train``."""
    import sklearn.decomposition  # before the limit, which holds for the libraries that are loaded
    import sklearn.feature_extraction.text  # noqa: F401
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):  # the last bits depend on how many threads there are, and these matrices are small
        if modality == "image":
            return principal_components(raw.reshape(len(raw), -1).astype(np.float32) / 255, train)
        return latent_semantics(raw, train)


def principal_components(vectors: np.ndarray, train: np.ndarray) -> Tensor:
    """The coordinates (N, 128) of vectors (N, D) on the principal components of the rows ``train``."""
    from sklearn.decomposition import PCA

    fitted = PCA(WIDTH, svd_solver="randomized", random_state=0).fit(vectors[train])
    return scaled(fitted.transform(vectors), train)


def latent_semantics(texts: np.ndarray, train: np.ndarray) -> Tensor:
    """Latent semantic analysis (N, 128) of N texts, fitted on those rows of ``train`` that are not empty; zero for empty texts."""
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.pipeline import make_pipeline, make_union

    words = TfidfVectorizer(token_pattern=r"\S+", sublinear_tf=True)
    trigrams = TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 3), sublinear_tf=True)
    filled = texts != ""
    train = train[filled[train]]
    fitted = make_pipeline(make_union(words, trigrams), TruncatedSVD(WIDTH, random_state=0)).fit(texts[train])
    vectors = np.zeros((len(texts), WIDTH))
    vectors[filled] = fitted.transform(texts[filled])
    return scaled(vectors, train)


def scaled(vectors: np.ndarray, train: np.ndarray) -> Tensor:
    """The vectors (N, D) divided by the root of their mean square over the rows ``train``."""
    return torch.from_numpy((vectors / np.sqrt(np.square(vectors[train]).mean())).astype(np.float32))
