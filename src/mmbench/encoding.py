"""How a method comes from a batch to features: each encoder runs on the rows that have its modality, and on no others."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from mmbench.batch import Batch, Input, select_rows
from mmbench.optimised import Optimised
from mmbench.presence import on_host, rows_of, sent
from mmbench.ranks import OwnGenerator, gathered, is_synchronised, joined, synchronise


class Encoding(Optimised):
    """The base of methods, as far as it runs encoders: on one device, or on its share of a batch."""

    log_prior: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.own_generator = OwnGenerator("encoders")  # of one of several devices, whose encoders drop out on its share

    def setup(self, stage: str) -> None:
        """On several devices, let encoders' batch normalisation see all rows, and make one batch of what each has read itself."""
        if self.trainer.world_size > 1:
            for encoders in self.sets_of_encoders():
                synchronise(encoders, self.trainer.strategy.root_device)
            if self.trainer.datamodule is None:  # type: ignore[attr-defined]  # mmbench's give each its share of one
                self.on_after_batch_transfer = self._joined  # type: ignore[method-assign]

    def _joined(self, batch: Any, dataloader_idx: int) -> Any:
        return joined(batch, self.spec.feature_dims) if isinstance(batch, Batch) and not batch.shares else batch

    def encode(self, batch: Batch) -> dict[str, Tensor]:
        """Encode the present samples of each modality.

        Returns:
            modality -> (B, out_dim). Rows of samples without the modality are zero: they were not encoded, so they cost
            nothing, do not enter batch statistics, and what stands in the input there has no effect.
        """
        return self.embed(self.encoders, batch, batch.present)

    def embed(self, encoders: nn.ModuleDict, batch: Batch, cells: Tensor) -> dict[str, Tensor]:
        """Run encoders on those cells of a batch, (B, M) bool, alone: modality -> (B, out_dim), zero elsewhere.

        On one of several devices, on those of its share; the others' features are gathered.
        """
        if batch.shares:
            return self._embed_share(encoders, batch, cells)
        features = {}
        for rows, (modality, encoder) in zip(rows_of(cells), encoders.items(), strict=True):
            value = batch.inputs[modality]
            if rows is None:
                features[modality] = self.run_encoder(encoder, value)
                continue
            width = int(encoder.out_dim)  # type: ignore[arg-type]
            out = torch.zeros(len(batch), width, device=cells.device, dtype=self.log_prior.dtype)
            if len(rows):
                encoded = self.run_encoder(encoder, select_rows(value, rows))  # (B', D)
                out = out.to(encoded.dtype).index_copy(0, rows, encoded)
            features[modality] = out
        return features

    def _embed_share(self, encoders: nn.ModuleDict, batch: Batch, cells: Tensor) -> dict[str, Tensor]:
        share, device, features = batch.shares[self.trainer.global_rank], cells.device, {}
        for here, (modality, encoder) in zip(on_host(cells).T, encoders.items(), strict=True):
            rows, width = sent(here[share].nonzero().squeeze(1), device), int(encoder.out_dim)  # type: ignore[arg-type]
            out = torch.zeros(share.stop - share.start, width, device=device, dtype=self.log_prior.dtype)
            if len(rows) or (is_synchronised(encoder) and here.any()):
                value = batch.inputs[modality]
                if modality in self.spec.feature_dims:
                    value = select_rows(value, share)
                with self.own_generator.drawn_from(device) if self.training else nullcontext():
                    encoded = self.run_encoder(encoder, select_rows(value, rows))  # (B', D)
                out = out.to(encoded.dtype).index_copy(0, rows, encoded)
            features[modality] = gathered(out, batch.shares)
        return features

    def run_encoder(self, encoder: nn.Module, value: Input) -> Tensor:
        """Encode (B', …) as (B', D), in bfloat16 if the recipe says so; what comes out is float32, and so is all that follows.

        Encoders are nearly all of the cost. Fusion, losses and what methods compute in closed form are not, and some of it (inverse
        factors, projections, running statistics) does not bear eight bits.
        """
        if self.recipe.precision != "bf16":
            return encoder(value)
        with torch.autocast(self.device.type, torch.bfloat16):
            return encoder(value).float()
