"""Thin Celery tasks: an id in, a library call, a service call out."""

from annotator.jobs import exports, imports, quality, training, watch

__all__ = ["exports", "imports", "quality", "training", "watch"]
