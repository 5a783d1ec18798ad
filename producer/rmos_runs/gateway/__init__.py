"""The HTTP gateway (contract section 6): a face of ``rmos_runs.operations`` and of the client."""
