"""Reports: tables, figures and a page, from the store alone."""
