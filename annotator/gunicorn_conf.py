"""gunicorn's settings: ``gunicorn -c annotator/gunicorn_conf.py annotator.wsgi``."""

from __future__ import annotations

import os

bind = os.environ.get("BIND", "127.0.0.1:8000")
workers = int(os.environ.get("WEB_CONCURRENCY", os.cpu_count() or 2))
# Threads wait for PostgreSQL and for slow clients; each keeps its own connection.
threads = int(os.environ.get("WEB_THREADS", "8"))
worker_class = "gthread"
keepalive = 65
timeout = 60
graceful_timeout = 20
accesslog = os.environ.get("ACCESS_LOG") or None
# Heartbeat files on a disk that stalls would get live workers killed.
worker_tmp_dir = "/dev/shm" if os.path.isdir("/dev/shm") else None
