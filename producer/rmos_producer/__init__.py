"""Everything that puts work in or asks about it.

``from rmos_producer import RunsClient`` is all that an upstream service needs.
"""

from rmos_producer.async_client import AsyncRunsClient
from rmos_producer.client import Receipt, RunsClient

__all__ = ["AsyncRunsClient", "Receipt", "RunsClient"]
