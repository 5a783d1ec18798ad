"""Flower with our configuration: who may look, what its pages say, and nothing that they change by default.

``python -m rmos_worker.flower``, or ``rmos flower``.
"""
