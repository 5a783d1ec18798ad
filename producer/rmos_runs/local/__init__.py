"""A pipeline on this machine: its home, its processes, its embedded server."""
