"""The driver of `make bench`: peers, requests, load and figures. Python's standard library alone."""
