"""The product: a page and a REST API that show where multi-label networks look."""
