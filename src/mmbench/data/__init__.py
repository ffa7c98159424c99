"""Data modules, one a data set."""

from mmbench.registry import Registry

DATASETS: Registry = Registry(
    "data set",
    "mmbench.datasets",
    {
        "iemocap_features": "mmbench.data.iemocap_features:IemocapFeatures",
        "openclipart": "mmbench.data.openclipart:OpenClipart",
        "openclipart_features": "mmbench.data.openclipart_features:OpenClipartFeatures",
    },
)
