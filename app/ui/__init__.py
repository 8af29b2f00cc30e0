"""The web page: a thin face over the same functions as the REST API."""
