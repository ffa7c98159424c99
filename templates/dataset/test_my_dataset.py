"""What mmbench asks of every data set, and what this one promises besides."""

from mmbench.data import DATASETS
from mmbench.testing import check_dataset


def test_it_holds_mmbenchs_contract() -> None:
    check_dataset(DATASETS["my_dataset"])


def test_no_recorder_is_in_two_clean_splits() -> None:
    recorders = [{name.split("-")[0] for name in ids} for ids in DATASETS["my_dataset"].split_ids("clean").values()]
    assert len(recorders) == 3
    assert sum(map(len, recorders)) == len(set.union(*recorders)) == 10
