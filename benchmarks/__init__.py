"""Measure a served model. A client of /v1 like any other: imports none of the other packages."""
