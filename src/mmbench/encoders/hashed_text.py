"""A bag of hashed words and character trigrams: the small encoder for short texts."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class HashedText(nn.Module):
    """The mean embedding of a text's words and of their character trigrams, dropout, and one linear layer.

    Tokens are hashed (CRC-32) into a fixed number of buckets, so that there is no vocabulary to fit on a training split.

    Args:
        buckets: hash buckets; bucket 0 is the padding.
        embedding_dim: width of a token's embedding.
        out_dim: width of the feature.
        dropout: applied to the mean embedding.
    """

    def __init__(self, buckets: int = 4096, embedding_dim: int = 64, out_dim: int = 64, dropout: float = 0.3) -> None:
        super().__init__()
        self.buckets = buckets
        self.out_dim = out_dim
        self.embedding = nn.Embedding(buckets, embedding_dim, padding_idx=0)
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(embedding_dim, out_dim)

    def tokenize(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """Hash the texts' words and trigrams.

        Args:
            texts: N texts; words are separated by white space.

        Returns:
            ``token`` (N, L) int32, bucket numbers padded with 0, L the length of the longest text; ``word`` (N, L) int32, the
            number, within its text, of the word that a token was made of.
        """
        rows = [[(self._bucket(t), w) for w, word in enumerate(text.split()) for t in tokens(word)] for text in texts]
        length = max(1, max(map(len, rows), default=1))
        padded = torch.tensor([row + [(0, 0)] * (length - len(row)) for row in rows], dtype=torch.int32)  # (N, L, 2)
        token, word = padded.reshape(-1, length, 2).unbind(dim=2)
        return {"token": token.contiguous(), "word": word.contiguous()}

    def _bucket(self, token: str) -> int:
        return 1 + zlib.crc32(token.encode()) % (self.buckets - 1)

    def forward(self, text: dict[str, Tensor]) -> Tensor:
        """Encode ``{"token": (B, L), …}`` as (B, out_dim); a text without tokens has a mean embedding of zero."""
        mean = F.embedding_bag(text["token"], self.embedding.weight, mode="mean", padding_idx=0)  # (B, E)
        return self.linear(self.dropout(mean))


def tokens(word: str) -> Iterator[str]:
    """A word and the trigrams of ``<word>``, the marks showing where it begins and ends.

    >>> list(tokens("cat"))
    ['cat', '<ca', 'cat', 'at>']
    """
    yield word
    marked = f"<{word}>"
    for start in range(len(marked) - 2):
        yield marked[start : start + 3]
