"""Data modules, one a data set."""

from mmbench.data.found import Datasets

DATASETS = Datasets(
    "data set",
    "mmbench.datasets",
    {
        "casia_surf": "mmbench.data.sets.casia_surf:CasiaSurf",
        "crema_d": "mmbench.data.sets.crema_d:CremaD",
        "food101": "mmbench.data.sets.food101:Food101",
        "iemocap": "mmbench.data.sets.iemocap:Iemocap",
        "iemocap6": "mmbench.data.sets.iemocap:Iemocap6",
        "iemocap_features": "mmbench.data.sets.iemocap_features:IemocapFeatures",
        "kinetics_sounds": "mmbench.data.sets.kinetics_sounds:KineticsSounds",
        "mvsa": "mmbench.data.sets.mvsa:Mvsa",
        "mvsa_merged": "mmbench.data.sets.mvsa:MvsaMerged",
        "openclipart": "mmbench.data.sets.openclipart:OpenClipart",
        "openclipart_features": "mmbench.data.sets.openclipart_features:OpenClipartFeatures",
        "tuxpaint": "mmbench.data.sets.tuxpaint:Tuxpaint",
    },
)
