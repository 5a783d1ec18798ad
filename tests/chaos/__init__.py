"""The chaos harness: a real pipeline under load while its processes are killed and its connections cut.

``python -m chaos`` (with ``tests`` on the path) runs it; ``report.py`` says what it comes to.
"""
