"""Encoders: what turns one modality's raw input into a feature vector.

An encoder is an ``nn.Module`` with an ``out_dim``, whose ``forward`` takes the modality's raw input (B, …) and returns
(B, out_dim). What makes numbers of the raw data is the encoder's own: pictures arrive as uint8 and are normalised by the
encoder, text encoders bring their ``tokenize``. Encoders with published weights derive from ``pretrained.Pretrained``; they import the
packages that their networks come from (timm, transformers) when they are built, so that looking up a name stays cheap.
"""

from mmbench.registry import Registry

ENCODERS: Registry = Registry(
    "encoder",
    "mmbench.encoders",
    {
        "bert": "mmbench.encoders.bert:Bert",
        "cav_mae": "mmbench.encoders.cav_mae:CavMae",
        "clip_image": "mmbench.encoders.clip:ClipImage",
        "clip_text": "mmbench.encoders.clip:ClipText",
        "hashed_text": "mmbench.encoders.hashed_text:HashedText",
        "m3ae_image": "mmbench.encoders.m3ae:M3AEImage",
        "m3ae_text": "mmbench.encoders.m3ae:M3AEText",
        "mlp": "mmbench.encoders.mlp:Mlp",
        "resnet18": "mmbench.encoders.timm_image:ResNet18",
        "resnet18_audio": "mmbench.encoders.timm_image:ResNet18Audio",
        "small_cnn": "mmbench.encoders.small_cnn:SmallCNN",
        "small_cnn_audio": "mmbench.encoders.small_media:SmallCNNAudio",
        "small_cnn_video": "mmbench.encoders.small_media:SmallCNNVideo",
        "timm_image": "mmbench.encoders.timm_image:TimmImage",
        "wav2vec2": "mmbench.encoders.wav2vec2:Wav2Vec2",
    },
)
