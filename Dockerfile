# Two images from one file: `--target web` (no torch) and `--target gpu` (the training worker).
FROM python:3.11-slim-bookworm AS base
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 \
    TOUCHSTONE_VAR=/var/lib/touchstone
RUN useradd --create-home --uid 10001 touchstone \
    && mkdir -p /var/lib/touchstone && chown touchstone /var/lib/touchstone
WORKDIR /app

FROM base AS web
COPY requirements/web.lock requirements/
RUN pip install -r requirements/web.lock
COPY manage.py pyproject.toml ./
COPY rubrics rubrics
COPY models models
COPY annotator annotator
COPY templates templates
# Static files do not depend on a database: any URL keeps the embedded servers from starting.
RUN DATABASE_URL=postgresql:///build REDIS_URL=redis://build SECRET_KEY=build TOUCHSTONE_VAR=/app/var \
    python manage.py collectstatic --noinput
ENV STATIC_ROOT=/app/var/static BIND=0.0.0.0:8000
USER touchstone
VOLUME /var/lib/touchstone
EXPOSE 8000
HEALTHCHECK --interval=15s --timeout=5s --start-period=20s --retries=4 \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/readyz', timeout=4)"]
CMD ["gunicorn", "-c", "annotator/gunicorn_conf.py", "annotator.wsgi"]

FROM base AS gpu
COPY requirements/gpu.lock requirements/
RUN pip install -r requirements/gpu.lock
COPY manage.py pyproject.toml ./
COPY rubrics rubrics
COPY models models
COPY annotator annotator
COPY templates templates
USER touchstone
VOLUME /var/lib/touchstone
# One solo process per device: CUDA does not survive a fork.
CMD ["celery", "-A", "annotator", "worker", "--loglevel=INFO", "--pool=solo", "--queues=gpu", "--hostname=gpu@%h"]
