"""The ``rmos`` command; each group of commands has a file of its own."""

from rmos_producer.cli.main import main

__all__ = ["main"]
