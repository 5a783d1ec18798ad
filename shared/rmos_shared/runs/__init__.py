"""Run artifacts: what a run is, where it lies, how it is written, read and proven."""
