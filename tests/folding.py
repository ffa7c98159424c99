"""What the folds of every data set hold, whatever it is; its tests call this with a copy of it."""

from collections import Counter
from collections.abc import Callable

import numpy as np
import torch

from mmbench.data.base import MultimodalDataModule
from mmbench.data.folds import Parts
from mmbench.data.prepared import PreparedDataModule
from mmbench.data.split import Mapped, Split
from mmbench.protocol import PROTOCOLS


def check_folds(parts: Parts, groups: list[str]) -> None:
    """Every sample is tested once under both splits, in parts of equal sizes, and no group is in two parts under ``clean``."""
    assert len(set(parts.names)) == len(parts.names) == len(groups)
    seen = {"clean": Counter(), "legacy": Counter()}
    crossing = 0
    for fold in range(parts.count):
        cuts = {split: parts.rows(split, fold) for split in ("clean", "legacy")}
        for split, (train, validation, test) in cuts.items():
            seen[split].update(test.tolist())
            rows = [*train, *validation, *test]
            assert len(set(rows)) == len(rows), "no sample is in two splits"
            assert (validation.size > 0) == (split == "clean")
        (train, validation, test), (legacy_train, _, legacy_test) = cuts["clean"], cuts["legacy"]
        assert (len(train), len(test)) == (len(legacy_train), len(legacy_test))
        assert len(train) + len(validation) + len(test) == len(groups)
        after = parts.rows("clean", (fold + 1) % parts.count)[2]
        assert validation.tolist() == after.tolist(), "what is validated on is tested in the next fold"
        sides = [{groups[row] for row in rows} for rows in (train, validation, test)]
        assert sum(map(len, sides)) == len(set.union(*sides)), "no group is on two sides"
        crossing += len({groups[row] for row in legacy_train} & {groups[row] for row in legacy_test})
    everything = Counter(range(len(groups)))
    assert seen == {"clean": everything, "legacy": everything}
    assert crossing, "legacy ignores groups"


def check_module(make: Callable[..., MultimodalDataModule], total: int) -> None:
    """The data module follows its folds: all that it loads of the test splits is every sample once, numbered alike in all folds."""
    groups: dict[str, list[torch.Tensor]] = {}
    for protocol in ("clean", "legacy"):
        tested: list[Split] = [make(protocol=protocol, fold=fold).splits.test for fold in range(make().folds)]
        assert sum(map(len, tested)) == total
        groups[protocol] = [split.group for split in tested]
        numbers = [set(group.tolist()) for group in groups[protocol]]
        apart = sum(map(len, numbers)) == len(set.union(*numbers))
        assert apart == (protocol == "clean")
    assert torch.equal(*(torch.cat(groups[p]).sort().values for p in ("clean", "legacy"))), (
        "groups have the same numbers"
    )
    peek, clean = (make(protocol=protocol, fold=1).splits for protocol in ("peek", "clean"))
    assert torch.equal(peek.test.group, clean.test.group)


def check_ids(data: type[PreparedDataModule]) -> None:
    """The ids that a prepared set tells of each split are those of the rows that it loads, in their order, whatever the cut."""
    table, cuts = data.table(), 0
    for protocol in PROTOCOLS:
        folds = [] if data.lacks(protocol) else [None]
        for fold in [*folds, *(range(data.folds) if data.folds > 1 else [])]:
            ids, loaded = data.split_ids(protocol, fold), data.textless(protocol, fold).load()
            for split in ("train", "validation", "test"):
                if (part := getattr(loaded, split)) is None:
                    assert split not in ids
                    continue
                rows = next(value.rows for value in part.inputs.values() if isinstance(value, Mapped))
                assert ids[split] == table["id"][rows].tolist()
                assert np.array_equal(part.label, table["label"][rows])
                assert len(ids[split]) > 0
            assert len(set().union(*ids.values())) == sum(map(len, ids.values())), "no id is in two splits"
            cuts += 1
    assert cuts > 1
