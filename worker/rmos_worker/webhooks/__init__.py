"""Webhooks: where messages may go, and how they are sent."""
