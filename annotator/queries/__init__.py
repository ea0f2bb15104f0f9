"""Reading: querysets and frozen dataclasses shaped for one page."""
