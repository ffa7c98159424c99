"""Open Clip Art as feature vectors: the track on which missing modalities are compared, as the papers do on IEMOCAP features."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from mmbench.batch import Input
from mmbench.data.sets.openclipart import OpenClipart
from mmbench.data.split import Loaded

WIDTH = 128
VERSION = 1
"""Raised when the features change while the shipped file does not."""


class OpenClipartFeatures(OpenClipart):
    """Each modality of ``openclipart`` as 128 numbers, fitted on the training split without its labels.

    ``image``: the leading principal components of the pixels. ``title`` and ``tags``: TF-IDF of words and of character trigrams,
    reduced by truncated singular value decomposition (latent semantic analysis). A modality's numbers are divided by one constant,
    so that their mean square over the training split is 1: the leading components stay the largest.

    Samples, splits, folds, groups and natural gaps are those of ``openclipart``. The features are made before any mask is drawn, as
    pre-extracted features are; nothing of the validation and test splits enters them.

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
        """Fit the features on the training split and apply them to all."""
        from threadpoolctl import threadpool_limits

        data = self.read()
        rows = self.rows(data)
        train, inputs = rows[0], dict[str, Input]()
        with threadpool_limits(1):  # the last bits depend on how many threads there are, and these matrices are small
            for modality in self.modalities:
                if modality == "image":
                    pixels = data["image"].reshape(len(data["image"]), -1).astype(np.float32) / 255
                    inputs["image"] = principal_components(pixels, train)
                else:
                    inputs[modality] = latent_semantics(data[modality], train)
        return self.cut(data, inputs, rows)


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
