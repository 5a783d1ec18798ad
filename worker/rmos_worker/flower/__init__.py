"""Flower with our configuration: who may look, what the pages say, and a server that changes nothing by default.

``python -m rmos_worker.flower``, or ``rmos flower``.
"""
