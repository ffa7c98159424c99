"""Data modules, one a data set."""

from mmbench.registry import Registry

DATASETS: Registry = Registry(
    "data set",
    "mmbench.datasets",
    {
        "casia_surf": "mmbench.data.casia_surf:CasiaSurf",
        "crema_d": "mmbench.data.crema_d:CremaD",
        "food101": "mmbench.data.food101:Food101",
        "iemocap": "mmbench.data.iemocap:Iemocap",
        "iemocap6": "mmbench.data.iemocap:Iemocap6",
        "iemocap_features": "mmbench.data.iemocap_features:IemocapFeatures",
        "kinetics_sounds": "mmbench.data.kinetics_sounds:KineticsSounds",
        "mvsa": "mmbench.data.mvsa:Mvsa",
        "mvsa_merged": "mmbench.data.mvsa:MvsaMerged",
        "openclipart": "mmbench.data.openclipart:OpenClipart",
        "openclipart_features": "mmbench.data.openclipart_features:OpenClipartFeatures",
        "tuxpaint": "mmbench.data.tuxpaint:Tuxpaint",
    },
)
