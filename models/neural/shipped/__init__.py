"""Files that go out with a dataset: read as text by an exporter, imported by tests alone."""
