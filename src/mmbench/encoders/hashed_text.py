"""A bag of hashed words and character trigrams: the small encoder for short texts."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmbench.encoders.rebuilt import Rebuildable


class HashedText(Rebuildable, nn.Module):
    """The mean embedding of a text's words and of their character trigrams, dropout, and one linear layer.

    Embeddings of width E are drawn with variance 1 / E and multiplied by √E (Vaswani et al., 2017, section 3.4): their gradient is √E
    times as large, without which plain SGD hardly moves the embeddings of rare tokens.

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
        self.scale = math.sqrt(embedding_dim)
        self.embedding = nn.Embedding(buckets, embedding_dim, padding_idx=0)
        nn.init.normal_(self.embedding.weight, std=1 / self.scale)
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
        rows = [text.split() for text in texts]
        buckets = {word: [self._bucket(t) for t in tokens(word)] for word in {w for row in rows for w in row}}
        lengths = torch.tensor([sum(len(buckets[word]) for word in row) for row in rows])
        longest = max(1, int(lengths.max())) if rows else 1
        filled = torch.arange(longest) < lengths[:, None]  # (N, L)
        token, number = (torch.zeros(len(rows), longest, dtype=torch.int32) for _ in range(2))
        token[filled] = torch.tensor([b for row in rows for word in row for b in buckets[word]], dtype=torch.int32)
        number[filled] = torch.tensor(
            [w for row in rows for w, word in enumerate(row) for _ in buckets[word]], dtype=torch.int32
        )
        return {"token": token, "word": number}

    def _bucket(self, token: str) -> int:
        return 1 + zlib.crc32(token.encode()) % (self.buckets - 1)

    def forward(self, text: dict[str, Tensor]) -> Tensor:
        """Encode ``{"token": (B, L), …}`` as (B, out_dim); a text without tokens has a mean embedding of zero."""
        mean = F.embedding_bag(text["token"], self.embedding.weight, mode="mean", padding_idx=0)  # (B, E)
        return self.linear(self.dropout(self.scale * mean))


def tokens(word: str) -> Iterator[str]:
    """A word and the trigrams of ``<word>``, the marks showing where it begins and ends.

    >>> list(tokens("cat"))
    ['cat', '<ca', 'cat', 'at>']
    """
    yield word
    marked = f"<{word}>"
    for start in range(len(marked) - 2):
        yield marked[start : start + 3]
