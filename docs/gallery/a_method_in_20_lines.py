"""
A method in 20 lines
====================

For whoever has an idea of how to fuse modalities, and wants to see what it makes of each set of them.
"""

# %%
# A method is a function of features and of *which modalities are present*. This one lets each modality propose a
# class, and weighs the proposals by a score that goes with each. The base class does the rest: it trains encoders and
# fusion by the cross-entropy of what ``fuse`` returns, and tests every presence pattern.

import os
import tempfile

import matplotlib.pyplot as plt
import pytorch_lightning as pl
import torch
from torch import nn

from mmbench.task import MultimodalTask


class Weighted(MultimodalTask):
    """The mean of the modalities' logits, weighed by how sure each looks."""

    def __init__(self, spec, encoders, recipe=None):
        super().__init__(spec, encoders, recipe)
        outputs = spec.num_classes + 1
        heads = {m: nn.Linear(width, outputs) for m, width in self.dims.items()}
        self.heads = nn.ModuleDict(heads)

    def fuse(self, features, present):
        said = [self.heads[m](features[m]) for m in self.modalities]
        said = torch.stack(said, dim=1)  # (B, M, C + 1)
        logits, scores = said[..., :-1], said[..., -1:]
        absent = ~present.unsqueeze(-1)  # (B, M, 1)
        weights = scores.masked_fill(absent, -1e9).softmax(dim=1).masked_fill(absent, 0)
        return (weights * logits).sum(dim=1)  # (B, C)


# %%
# Data, encoders and a recipe are all that it needs. ``quieten`` silences what Lightning says of every training.

from mmbench.best_epoch import BestEpoch
from mmbench.data.sets.openclipart_features import OpenClipartFeatures
from mmbench.encoders.mlp import Mlp
from mmbench.recipe import Recipe
from mmbench.training import quieten

# Where features are kept that are made once.
os.environ.setdefault("MMBENCH_DATA", tempfile.mkdtemp(prefix="mmbench-"))
quieten()
torch.set_num_threads(1)  # more of them gain nothing on small matrices
pl.seed_everything(0, verbose=False)

data = OpenClipartFeatures(protocol="clean", fold=0)
encoders = {modality: Mlp(in_dim=128, dropout=0.5) for modality in data.modalities}
recipe = Recipe(optimizer="adam", epochs=12, lr=0.001, step_size=10)
task = Weighted(data.spec, encoders, recipe)

# %%
# Any Trainer trains it. ``BestEpoch`` keeps the model of the epoch that is best on the validation part; the test part
# is read once.

best = BestEpoch()
trainer = pl.Trainer(
    max_epochs=task.recipe.epochs,
    accelerator="cpu",
    callbacks=[best],
    logger=False,
    enable_checkpointing=False,
    enable_progress_bar=False,
    enable_model_summary=False,
)
trainer.fit(task, datamodule=data)
best.restore(task)
(metrics,) = trainer.test(task, datamodule=data, verbose=False)

# %%
# One training, and the accuracy of each presence pattern. ``test/accuracy`` is that of everything.

names = [name for name in metrics if name.startswith("test/accuracy")]
values = [100 * metrics[name] for name in names]
for name, value in zip(names, values, strict=True):
    print(f"{name:32} {value:.1f} %")

figure, axes = plt.subplots(figsize=(6, 3), layout="constrained")
axes.barh(names, values)
axes.invert_yaxis()
axes.set(xlabel="accuracy, %")
plt.show()

# %%
# To compare it with others on the same pictures, with intervals, give it a name: :doc:`/how_to/my_method` has the two
# ways, a line in this repository or a package of your own.
