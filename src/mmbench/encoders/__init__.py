"""Encoders: what turns one modality's raw input into a feature vector.

An encoder is an ``nn.Module`` with an ``out_dim``, whose ``forward`` takes the modality's raw input (B, …) and returns
(B, out_dim). What makes numbers of the raw data is the encoder's own: pictures arrive as uint8 and are normalised by the
encoder, text encoders bring their ``tokenize``.
"""

from mmbench.registry import Registry

ENCODERS: Registry = Registry(
    "encoder",
    "mmbench.encoders",
    {
        "hashed_text": "mmbench.encoders.hashed_text:HashedText",
        "mlp": "mmbench.encoders.mlp:Mlp",
        "small_cnn": "mmbench.encoders.small_cnn:SmallCNN",
    },
)
