"""The site: ``make docs``. Pages that the code knows enough to write are written by ``_ext``, whenever the site is built."""

import os
import sys
from importlib.metadata import version as version_of
from pathlib import Path
from tempfile import TemporaryDirectory

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "_ext"))

project = "mmbench"
author = "The mmbench authors"
copyright = f"2026, {author}"
version = release = version_of("mmbench")

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx_gallery.gen_gallery",
    "made",
    "signatures",
]
exclude_patterns = ["_build", "_ext", "gallery/*"]
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}
myst_enable_extensions = ["attrs_inline", "colon_fence", "deflist", "fieldlist"]
myst_heading_anchors = 3

html_theme = "furo"
html_title = "mmbench"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sphinx = False
pygments_style = "friendly"
copybutton_prompt_text = r"\$ |>>> "
copybutton_prompt_is_regexp = True

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
napoleon_use_rtype = False
napoleon_use_ivar = True
napoleon_attr_annotations = False
add_module_names = False
toc_object_entries_show_parents = "hide"
python_maximum_signature_line_length = 70

# Scripts make features once, for all of them, and leave nothing behind.
data = TemporaryDirectory(prefix="mmbench-docs-")
os.environ["MMBENCH_DATA"] = data.name

sphinx_gallery_conf = {
    "examples_dirs": "gallery",
    "gallery_dirs": "examples",
    "filename_pattern": r"/[a-z]\w*\.py$",
    "within_subsection_order": "gallery_order.Order",
    "download_all_examples": False,
    "notebook_extensions": set(),
    "capture_repr": (),  # pages show what the script prints
    "min_reported_time": 3600,  # seconds: no page says how long it took
    "write_computation_times": False,
    "show_memory": False,
    "show_signature": False,
    "remove_config_comments": True,
    "abort_on_example_error": True,
    "plot_gallery": "True",
}
