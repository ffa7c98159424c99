"""The methods, one file each; a line here registers a method."""

from mmbench.registry import Registry

METHODS: Registry = Registry(
    "method",
    "mmbench.methods",
    {
        "sum": "mmbench.baselines.sum:Sum",
        "concat": "mmbench.baselines.concat:Concat",
        "late_fusion": "mmbench.baselines.late_fusion:LateFusion",
        "unimodal": "mmbench.baselines.unimodal:Unimodal",
        "film": "mmbench.baselines.film:Film",
        "bigated": "mmbench.baselines.bigated:BiGated",
        "ogm_ge": "mmbench.baselines.ogm_ge:OgmGe",
        "qmf": "mmbench.baselines.qmf:Qmf",
        "mla": "mmbench.baselines.mla:Mla",
        "cca": "mmbench.baselines.cca:Cca",
        "dcca": "mmbench.baselines.dcca:Dcca",
        "dccae": "mmbench.baselines.dccae:Dccae",
        "ae": "mmbench.baselines.ae:Ae",
        "cra": "mmbench.baselines.cra:Cra",
        "mmin": "mmbench.baselines.mmin:Mmin",
        "if_mmin": "mmbench.baselines.if_mmin:IfMmin",
        "cpm_net": "mmbench.baselines.cpm_net:CpmNet",
        "tate": "mmbench.baselines.tate:Tate",
        "dmrnet": "mmbench.baselines.dmrnet:Dmrnet",
        "shaspec": "mmbench.baselines.shaspec:Shaspec",
        "lmf": "mmbench.baselines.lmf:Lmf",
        "masked_transformer": "mmbench.baselines.masked_transformer:MaskedTransformer",
        "pattern_prompts": "mmbench.baselines.pattern_prompts:PatternPrompts",
        "multi_loss": "mmbench.baselines.multi_loss:MultiLoss",
        "arl": "mmbench.baselines.arl:Arl",
        "dgl": "mmbench.baselines.dgl:Dgl",
        "umt": "mmbench.baselines.umt:Umt",
        "mmpareto": "mmbench.baselines.mmpareto:MMPareto",
        "pmr": "mmbench.baselines.pmr:Pmr",
    },
)
