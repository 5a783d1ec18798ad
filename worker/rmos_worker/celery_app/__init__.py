"""The Celery side: the application, what passes its transport, its schedule, Flower."""
