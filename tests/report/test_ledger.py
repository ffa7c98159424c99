"""The ledger: what papers report beside what was measured. It is what the command makes of files that git keeps."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from test_reported import NUMBER, PAPER, changed, written

from mmbench.cli import main
from mmbench.errors import DataError
from mmbench.report.ledger import committed, ledger, to_csv
from mmbench.report.ledger_page import to_markdown
from mmbench.report.reported import NUMBER_COLUMNS

RESULTS = Path(__file__).parents[2] / "results"
TABLE = "dataset,protocol,training,method,pattern,metric,mean,std,ci_low,ci_high,n,samples,reported,track,artefact"
RATES = "dataset,protocol,evaluation,training_rate,rate,method,mean,ci_low,ci_high,n,reported,track"


def other(**changes: str) -> list[str]:
    return changed(NUMBER, NUMBER_COLUMNS, **{"method": "concat", **changes})


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Reported numbers, and two reports; one of them was made as a paper's numbers were."""
    (tmp_path / "reported").mkdir()
    written(
        tmp_path / "reported",
        [PAPER, ["unread", "Another", "ICML 2024", "", "agm", "none", "its tables could not be read", ""]],
        [
            other(value="60.0", std=""),
            other(value="70.0", modalities="audio", variant="large"),
            other(value="50.0", missing_rate="0.3"),
            other(method="novel", value="61.1"),
            other(value="9.0", metric="unweighted_accuracy"),
            other(value="40.0", modalities="mean incomplete"),
            other(dataset="handwritten", value="95.0"),
        ],
    )
    for name, lines in {
        "a/table.csv": [
            TABLE,
            "crema_d,legacy,complete,concat,audio+video,accuracy,61.5,1.0,60.5,62.5,3,744,60.0,,",
            "crema_d,clean,complete,concat,audio+video,accuracy,55.0,1.0,54.0,56.0,3,744,,,",
            "crema_d,clean,complete,concat,audio,accuracy,52.0,,,,0,,,,",
            "crema_d,clean,anchor 0.3,concat,audio,accuracy,51.0,1.0,50.0,52.0,3,744,,,",
        ],
        "b/table.csv": [
            TABLE,
            "crema_d,legacy,complete,concat,audio,accuracy,50.0,1.0,49.0,51.0,3,744,48.0,,",
            "crema_d,clean,complete,concat,audio,accuracy,53.0,1.0,52.0,54.0,5,744,,,",
            "crema_d,clean,complete,concat,audio,ece,5.0,1.0,,,5,744,,,",
            "crema_d,clean,complete,qmf,audio,accuracy,1.0,1.0,0.0,2.0,5,744,,made up,",
        ],
        "b/rates.csv": [
            RATES,
            "crema_d,clean,matched,0.3000,0.3000,concat,44.0,43.0,45.0,2,,",
            "crema_d,clean,robustness,0.0000,0.3000,concat,33.0,32.0,34.0,2,,",
        ],
        "local/c/table.csv": ["not read"],
        "reported/d/table.csv": ["not read"],
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_text("\n".join(lines) + "\n")
    return tmp_path


def rows(results: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(to_csv(ledger(results, results / "reported")).splitlines()))


def test_the_committed_ledger_is_what_the_command_makes() -> None:
    made = ledger(RESULTS, RESULTS / "reported")
    again = "reported numbers or committed reports have changed: run `mmbench ledger`, and commit what it writes"
    assert (RESULTS / "ledger.csv").read_text() == to_csv(made), again
    assert (RESULTS / "ledger.md").read_text() == to_markdown(made), again


def test_every_number_is_in_it_once_with_its_source_and_ours_or_why_not() -> None:
    made = ledger(RESULTS, RESULTS / "reported")
    assert len(made.entries) > 300
    for entry in made.entries:
        assert (entry.ours is None) == bool(entry.why)
        assert all([entry.number.table, entry.number.row, entry.number.column, entry.paper.seen])
    beside = {(e.number.dataset, e.number.method, e.ours.report) for e in made.entries if e.ours}
    assert ("handwritten", "qmf", "six_views") in beside


def test_what_was_made_as_the_papers_number_was_is_compared_with_it(results: Path) -> None:
    first = rows(results)[0]
    assert (first["ours"], first["protocol"], first["report"], first["n"]) == ("61.50", "legacy", "a", "3")
    assert [first[name] for name in ("difference", "difference_low", "difference_high")] == ["+1.50", "+0.50", "+2.50"]
    assert first["why_not_ours"] == ""


def test_what_was_made_otherwise_stands_beside_it_without_a_difference(results: Path) -> None:
    """The report of b has another number of the paper's beside its own, which is of other encoders; so clean goes first."""
    second = rows(results)[1]
    assert (second["variant"], second["ours"], second["ci_low"], second["ci_high"]) == (
        "large",
        "53.00",
        "52.00",
        "54.00",
    )
    assert (second["report"], second["protocol"], second["difference"]) == ("b", "clean", "")


def test_missing_rates_are_those_of_training_and_test(results: Path) -> None:
    third = rows(results)[2]
    assert (third["missing_rate"], third["ours"], third["report"]) == ("0.3", "44.00", "b")


def test_a_number_without_ours_says_why(results: Path) -> None:
    assert [row["why_not_ours"] for row in rows(results)[3:]] == [
        "the suite does not have the method",
        "no committed report has the method on this data set in this way, with this metric",
        "reports have no mean over incomplete patterns alone",
        "no committed report has the data set",
    ]


def test_made_up_data_and_runs_of_ones_own_do_not_count(results: Path) -> None:
    assert not any("qmf" in key for key in committed(results))
    assert {ours.report for found in committed(results).values() for ours in found} == {"a", "b"}


def test_the_page(results: Path) -> None:
    page = to_markdown(ledger(results, results / "reported"))
    assert "| method | pmr | ours |\n| --- | --- | --- |\n| concat | 60.00 | 61.50 [60.50, 62.50] |" in page
    assert "| novel | **61.10 ± 0.50** | – |" in page, "a paper's own method is bold"
    assert (
        "| concat | pmr | 70.00 ± 0.50 (large) | 40.00 ± 0.50 |\n| concat | ours | 53.00 [52.00, 54.00] | – |" in page
    )
    assert (
        "| method | paper | 0.3 |\n| --- | --- | --- |\n| concat | pmr | 50.00 ± 0.50 |\n| concat | ours | 44.00 [43.00, 45.00] |"
        in page
    )
    assert "| concat | multi | pmr | +1.50 [+0.50, +2.50] |" in page
    assert (
        "| unread | Another, ICML 2024 | its tables could not be read |"
        in page.split("## Papers without a number here")[1]
    )


def test_quoted_numbers_are_marked(results: Path) -> None:
    written(results / "reported", [[*PAPER[:5], "quoted", *PAPER[6:]]], [other(std="")])
    assert "| concat | 61.10° | 55.00 [54.00, 56.00] |" in to_markdown(ledger(results, results / "reported"))


def test_a_report_that_is_damaged_is_told(results: Path) -> None:
    (results / "a" / "table.csv").write_text("dataset,method\ncrema_d,concat\n")
    with pytest.raises(
        DataError, match=r"a/table.csv is not a report's table.csv \('training'\); `mmbench report` writes it anew"
    ):
        committed(results)


def test_the_command(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--results", str(results), "ledger"]) == 0
    assert capsys.readouterr().out == f"wrote {results}/ledger.csv and .md: 7 reported numbers, 3 with ours\n"
    assert (results / "ledger.csv").read_text() == to_csv(ledger(results, results / "reported"))
    assert (results / "ledger.md").read_text().startswith("# What papers report")
    (results / "reported" / "others.csv").write_text("a,b\n")
    assert main(["--results", str(results), "ledger"]) == 1
    assert "others.csv, line 1: got the columns a, b, expected paper" in capsys.readouterr().err
