"""What stands beside the site: the citation, and the forms for issues, name what there is."""

import re
from configparser import ConfigParser
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
FORMS = sorted(path for path in (ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml") if path.name != "config.yml")


def test_the_citation_is_of_this_suite_and_its_two_papers():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    package = ConfigParser()
    package.read(ROOT / "setup.cfg")
    assert (citation["title"], citation["license"]) == (package["metadata"]["name"], package["metadata"]["license"])
    assert citation["version"] == package["metadata"]["version"]
    newest = re.search(r"^## (\d\S*) – (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest.groups() == (citation["version"], str(citation["date-released"]))
    papers = {paper["notes"]: paper["identifiers"][0]["value"] for paper in citation["references"]}
    assert papers == {"MLA": "arXiv:2311.10707", "DMRNet": "arXiv:2407.04458"}
    assert all(paper["title"] and paper["year"] and paper["authors"] for paper in citation["references"])


@pytest.mark.parametrize("path", FORMS, ids=[path.stem for path in FORMS])
def test_forms_of_issues_have_what_forms_need(path):
    form = yaml.safe_load(path.read_text())
    assert form["name"]
    assert form["description"]
    asked = [part for part in form["body"] if part["type"] != "markdown"]
    ids = [part["id"] for part in asked]
    assert len(ids) == len(set(ids)) >= 4
    assert all(part["attributes"]["label"] for part in asked)
    assert any(part.get("validations", {}).get("required") for part in asked)
