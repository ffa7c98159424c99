"""The page: one file that needs nothing else, with tables that sort and charts that answer."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from hashlib import sha256
from importlib.resources import files
from io import BytesIO
from typing import TYPE_CHECKING, Any

from mmbench.missing import patterns
from mmbench.report.cells import DASH, Cell, Section, columns
from mmbench.report.charts import Chart, charts, specification
from mmbench.report.colours import palette
from mmbench.report.summary import NOTE, summary
from mmbench.report.tables import header_notes, sections

if TYPE_CHECKING:
    from mmbench.record import Record
    from mmbench.report.collect import Results

COLOURS = 64
"""Of a figure's PNG on the page; lines and letters are as sharp, and it takes a third of the bytes."""
NUMBER = re.compile(r"[+\-−]?\d[\d,]*(\.\d+)?(e[+\-]?\d+)?(?=$|[\s%])")
"""What a cell begins with whose column sorts as numbers; ``page.js`` has the same."""
PIXELS_AN_INCH = 160
"""Of a figure's PNG."""
DARK = "#15181c"
"""The ground of the dark page, which ``page.css`` has too."""
CONTRAST = 4.5
"""Of a method's colour with the dark ground, at least."""


@dataclass(frozen=True)
class Picture:
    """A figure that stands still.

    Attributes:
        name: of its file, without the ending.
    """

    name: str
    caption: str
    svg: bytes
    png: bytes

    @cached_property
    def source(self) -> str:
        """It as a ``data:`` address: what is smaller of the SVG and the PNG of fewer colours."""
        from PIL import Image

        buffer = BytesIO()
        with Image.open(BytesIO(self.png)) as image:
            fewer = image.convert("RGB").quantize(COLOURS, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
        fewer.save(buffer, "png")
        kind, data = min(("svg+xml", self.svg), ("png", buffer.getvalue()), key=lambda each: len(each[1]))
        return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"

    @property
    def width(self) -> int:
        """How wide it is drawn, in CSS's pixels: at this, the letters of all figures have one size."""
        return round(int.from_bytes(self.png[16:20]) / PIXELS_AN_INCH * 96)  # where a PNG has its width


@dataclass(frozen=True)
class Part:
    """Tables under a heading; ``name`` is that of its element."""

    name: str
    title: str
    sections: list[Section]

    @property
    def has_records(self) -> bool:
        """Whether a table leads to trials."""
        return any(section.records for section in self.sections)


def to_html(results: Results, pictures: Sequence[Picture] = (), runs: str | None = None) -> str:
    """The report as a page.

    Args:
        results: what it reports.
        pictures: the figures.
        runs: where the store is, as an address relative to the page; None: trials are named and not linked to.
    """
    from jinja2 import Environment

    styles = palette([row.method for row in results.rows])
    drawn, tables, findings = charts(results), sections(results), summary(results)
    parts = [
        Part("tables", "Tables", [section for section in tables if not section.words]),
        Part("training", "Training", [section for section in tables if section.words]),
    ]
    stills = {picture.name: picture for picture in pictures}
    data = {
        "methods": [{"name": m, "dash": s.dash[1], "marker": s.marker} for m, s in styles.items()],
        "charts": {chart.name: {**chart.data(), "spec": _compiled(chart, styles)} for chart in drawn},
    }
    scripts = [_bundle() if drawn else "", _file("page.js")]
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"numeric": numeric_columns, "trial": trial_text}
    return environment.from_string(_file("page.html")).render(
        title=results.experiment.grid.title,
        notes=header_notes(results),
        css=_file("page.css") + _colours(styles),
        scripts=scripts,
        hashes=[base64.b64encode(sha256(script.encode()).digest()).decode() for script in scripts],
        data=script_json(data),
        charts=[(chart, stills.get(chart.still)) for chart in drawn],
        pictures=[picture for picture in pictures if picture.name not in {chart.still for chart in drawn}],
        findings=findings,
        found_note=NOTE if any(" told " in finding for _, finding in findings) else "",
        parts=[part for part in parts if part.sections],
        gaps=results.not_run,
        full=_every_number(results),
        runs=runs,
    )


def numeric_columns(section: Section) -> list[bool]:
    """Whether each column of a table holds numbers, and sorts as such; the first one names the rows."""
    if section.words:
        return [False] * len(section.header)
    columns = zip(*section.body, strict=True) if section.body else [()] * len(section.header)
    texts = [[cell.text for cell in column if cell.text not in ("", DASH)] for column in columns]
    return [i > 0 and all(NUMBER.match(text) for text in column) for i, column in enumerate(texts)]


def trial_text(record: Record) -> str:
    """Which of a row's trials it is."""
    fold = "" if record.trial.fold is None else f", fold {record.trial.fold}"
    return f"seed {record.trial.seed}{fold}"


def script_json(data: Any) -> str:
    """JSON that may stand in a ``script`` element: no text in it ends the element or begins a comment."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _file(name: str) -> str:
    return (files("mmbench.report") / name).read_text(encoding="utf-8")


@cache
def _bundle() -> str:
    """Vega, as one script, with all that it needs. It comes out of the package ``vl_convert``, which has it under its address."""
    import vl_convert

    address = f"https://cdn.jsdelivr.net/npm/vega@{vl_convert.get_vega_version()}/+esm.js"  # nothing is fetched
    script = vl_convert.javascript_bundle(f'import {{View, parse}} from "{address}"; window.vega = {{View, parse}};')
    return script.replace("</script", "<\\/script").replace("<!--", "<\\!--").replace("\r\n", "\n")


def _compiled(chart: Chart, styles: Mapping[str, Any]) -> dict[str, Any]:
    """A panel as Vega has it."""
    import vl_convert

    return vl_convert.vegalite_to_vega(specification(chart, dict(styles)))


def _colours(styles: Mapping[str, Any]) -> str:
    """The methods' colours as variables of the page, for light and for dark."""
    pairs = [f"--m{i}: light-dark({s.colour}, {lightened(s.colour)});" for i, s in enumerate(styles.values())]
    return f":root {{ {' '.join(pairs)} }}\n"


def lightened(colour: str) -> str:
    """The colour, ``#RRGGBB``, mixed with as much white as it takes to be read on the dark ground."""
    parts = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    for white in range(0, 101, 10):
        mixed = "#" + "".join(f"{round(part + (255 - part) * white / 100):02X}" for part in parts)
        if contrast(mixed, DARK) >= CONTRAST:
            break
    return mixed


def contrast(one: str, other: str) -> float:
    """The ratio of two colours' luminances, from 1 to 21, as the Web Content Accessibility Guidelines define it."""
    low, high = sorted((_luminance(one), _luminance(other)))
    return (high + 0.05) / (low + 0.05)


def _luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _every_number(results: Results) -> Section:
    """The table for programs, for readers: one row a pattern, one column a metric with its interval; of many patterns, some."""
    shown = {dataset: columns(modalities, "all") for dataset, modalities in results.modalities.items()}
    some = any(len(shown[d]) < len(patterns(modalities)) for d, modalities in results.modalities.items())
    table = results.table
    where = ["dataset", "protocol", "training", "method", "pattern"]
    metrics = list(dict.fromkeys(table.metric))
    cells: dict[tuple[str, ...], dict[str, str]] = {}
    for line in table.itertuples():
        if line.pattern not in shown[line.dataset]:
            continue
        row = cells.setdefault(tuple(getattr(line, name) for name in where), {})
        row[line.metric] = (
            DASH if line.mean != line.mean else f"{line.mean:.2f} [{line.ci_low:.2f}, {line.ci_high:.2f}]"
        )
        row |= {
            "n": str(line.n),
            "samples": str(line.samples),
            "note": ", ".join(filter(None, (line.track, line.artefact))),
        }
    header = [*where, *metrics, "n", "samples", "note"]
    body = [
        [Cell(text) for text in (*key, *(row.get(name, DASH) for name in header[len(where) :]))]
        for key, row in cells.items()
    ]
    which = "Patterns with one modality, without one and with all: all" if some else "All patterns and"
    return Section(f"{which} metrics, with 95 % intervals", [], header, body)
