"""Every setting, read from the environment. A fresh clone runs with none of them set."""

from __future__ import annotations

from pathlib import Path

from csp.constants import NONE, SELF

from annotator import embedded
from annotator.env import (
    database_settings,
    env_bool,
    env_int,
    env_list,
    env_str,
    stored_secret,
)

BASE_DIR = Path(__file__).resolve().parent.parent
VAR_DIR = Path(env_str("TOUCHSTONE_VAR", str(BASE_DIR / "var"))).resolve()

DEBUG = env_bool("DEBUG", default=False)
SECRET_KEY = env_str("SECRET_KEY") or stored_secret(VAR_DIR / "secret_key")
SECRET_KEY_FALLBACKS = env_list("SECRET_KEY_FALLBACKS", [])
ALLOWED_HOSTS = env_list("ALLOWED_HOSTS", ["localhost", "127.0.0.1", "[::1]"])
CSRF_TRUSTED_ORIGINS = env_list("CSRF_TRUSTED_ORIGINS", [])
SITE_URL = env_str("SITE_URL", "http://127.0.0.1:8000")

# Services -----------------------------------------------------------------------------------
# With a URL unset, the real server is started from its wheel under var/ (or reused).

_services = embedded.ensure(
    VAR_DIR,
    database_url=env_str("DATABASE_URL") or None,
    redis_url=env_str("REDIS_URL") or None,
)
REDIS_URL = _services.redis_url
DATABASES = {"default": database_settings(_services.database_url)}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

CACHES = {
    "default": {
        "BACKEND": "django.core.cache.backends.redis.RedisCache",
        "LOCATION": REDIS_URL,
        "KEY_PREFIX": "touchstone",
    }
}
SESSION_ENGINE = "django.contrib.sessions.backends.cached_db"
SESSION_COOKIE_AGE = 60 * 60 * 24 * 14

CELERY_BROKER_URL = embedded.celery_url(REDIS_URL)
CELERY_TASK_IGNORE_RESULT = True  # progress and outcome are columns on Run
CELERY_TASK_ACKS_LATE = True
CELERY_TASK_REJECT_ON_WORKER_LOST = True
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_TASK_DEFAULT_QUEUE = "default"
CELERY_TASK_ROUTES = {
    "annotator.jobs.training.*": {"queue": "gpu"},
    "annotator.jobs.judging.*": {"queue": "llm"},
}
# Redis hands a message out again after this long; Run.begin() makes a second delivery a no-op.
# QUEUE_PREFIX keeps the queues of two installations apart that share one Redis.
CELERY_BROKER_TRANSPORT_OPTIONS = {
    "visibility_timeout": 60 * 60 * 24,
    "global_keyprefix": env_str("QUEUE_PREFIX"),
}
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_TIMEZONE = "UTC"
# A run whose worker has not been heard of for this long is given to another. Hearts beat every
# five seconds: much less than three beats takes runs away from workers that live.
RUN_STALE_SECONDS = env_int("RUN_STALE_SECONDS", 30)

# Application --------------------------------------------------------------------------------

INSTALLED_APPS = [
    "annotator",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "whitenoise.runserver_nostatic",
    "django.contrib.staticfiles",
    "django.contrib.postgres",
    "django_htmx",
    "template_partials",
    "csp",
    "allauth",
    "allauth.account",
    "allauth.mfa",
    "allauth.socialaccount",
    "allauth.socialaccount.providers.openid_connect",
]

MIDDLEWARE = [
    "annotator.middleware.health",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "csp.middleware.CSPMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
    "allauth.account.middleware.AccountMiddleware",
    "annotator.middleware.htmx",
    "annotator.middleware.app_errors",
]

ROOT_URLCONF = "annotator.urls"
WSGI_APPLICATION = "annotator.wsgi.application"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
            "builtins": [
                "template_partials.templatetags.partials",
                "annotator.templatetags.touchstone",
            ],
        },
    }
]

# Accounts -----------------------------------------------------------------------------------

AUTH_USER_MODEL = "annotator.User"
AUTHENTICATION_BACKENDS = ["allauth.account.auth_backends.AuthenticationBackend"]
LOGIN_URL = "account_login"
LOGIN_REDIRECT_URL = "projects"
LOGOUT_REDIRECT_URL = "account_login"
ACCOUNT_ADAPTER = "annotator.accounts.AccountAdapter"
ACCOUNT_USER_MODEL_USERNAME_FIELD = None
ACCOUNT_LOGIN_METHODS = {"email"}
ACCOUNT_SIGNUP_FIELDS = ["email*", "password1*"]
ACCOUNT_SIGNUP_FORM_CLASS = "annotator.forms.accounts.SignupForm"
ACCOUNT_EMAIL_VERIFICATION = "mandatory" if env_str("EMAIL_HOST") else "none"
ACCOUNT_SESSION_REMEMBER = True
# Anyone may sign up when set; otherwise only the holder of an invitation link.
OPEN_SIGNUP = env_bool("OPEN_SIGNUP", default=False)
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {
        "NAME": "django.contrib.auth.password_validation.MinimumLengthValidator",
        "OPTIONS": {"min_length": 10},
    },
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]
# Without a mail server no address can be verified; a second factor is worth having all the same.
MFA_ALLOW_UNVERIFIED_EMAIL = not env_str("EMAIL_HOST")
MFA_SUPPORTED_TYPES = ["totp", "webauthn", "recovery_codes"]
SOCIALACCOUNT_PROVIDERS = {}
if env_str("OIDC_SERVER_URL"):
    SOCIALACCOUNT_PROVIDERS["openid_connect"] = {
        "APPS": [
            {
                "provider_id": "oidc",
                "name": env_str("OIDC_NAME", "Single sign-on"),
                "client_id": env_str("OIDC_CLIENT_ID"),
                "secret": env_str("OIDC_SECRET"),
                "settings": {"server_url": env_str("OIDC_SERVER_URL")},
            }
        ]
    }

EMAIL_HOST = env_str("EMAIL_HOST", "localhost")
EMAIL_PORT = env_int("EMAIL_PORT", 25)
EMAIL_HOST_USER = env_str("EMAIL_HOST_USER")
EMAIL_HOST_PASSWORD = env_str("EMAIL_HOST_PASSWORD")
EMAIL_USE_TLS = env_bool("EMAIL_USE_TLS", default=False)
DEFAULT_FROM_EMAIL = env_str("DEFAULT_FROM_EMAIL", "touchstone@localhost")
if not env_str("EMAIL_HOST"):
    EMAIL_BACKEND = "django.core.mail.backends.console.EmailBackend"

# Files --------------------------------------------------------------------------------------

STATIC_URL = "/static/"
STATIC_ROOT = Path(env_str("STATIC_ROOT", str(VAR_DIR / "static")))
MEDIA_ROOT = VAR_DIR / "media"
# Imports wait here, checkpoints, models and datasets live here: the web, the worker and the gpu
# worker must see the same folder (one volume, or one machine).
WORK_ROOT = Path(env_str("TOUCHSTONE_WORK", str(VAR_DIR / "work")))
# Folders of pretrained models that owners may name as a backbone. Hub ids need no folder.
MODEL_ROOTS = [Path(p) for p in env_list("MODEL_ROOTS", [str(WORK_ROOT / "models")])]
WHITENOISE_USE_FINDERS = DEBUG
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "whitenoise.storage.CompressedManifestStaticFilesStorage"},
}
if env_str("S3_BUCKET"):
    STORAGES["default"] = {
        "BACKEND": "storages.backends.s3.S3Storage",
        "OPTIONS": {
            "bucket_name": env_str("S3_BUCKET"),
            "endpoint_url": env_str("S3_ENDPOINT") or None,
            "querystring_auth": True,
        },
    }
MAX_UPLOAD_BYTES = env_int("MAX_UPLOAD_BYTES", 2 * 1024**3)
DATA_UPLOAD_MAX_MEMORY_SIZE = 4 * 1024 * 1024
FILE_UPLOAD_HANDLERS = [
    "annotator.uploads.UploadQuota",
    "django.core.files.uploadhandler.TemporaryFileUploadHandler",
]

# AI judges ----------------------------------------------------------------------------------
# Hosts that owners may name as an endpoint, as "host" or "host:port". Nothing else is called.
# The simulated judge of the demo set listens on SIMULATED_JUDGE.
SIMULATED_JUDGE = env_str("SIMULATED_JUDGE", "127.0.0.1:8790")
LLM_HOSTS = [*env_list("LLM_HOSTS", []), SIMULATED_JUDGE]

# Scores on demand ---------------------------------------------------------------------------
# Requests a minute by one token, 0 for no limit, and how long one waits for a worker before it is
# told to look again.
SCORE_REQUESTS_PER_MINUTE = env_int("SCORE_REQUESTS_PER_MINUTE", 60)
SCORE_WAIT_SECONDS = env_int("SCORE_WAIT_SECONDS", 5)

# Datasets -----------------------------------------------------------------------------------
# Whether a dataset is loaded, rendered and preprocessed as its readers would before it is offered,
# and a tokenizer (a folder or a name on the hub) whose chat template is tried beside the plain one.
DATASET_CHECKS = env_bool("DATASET_CHECKS", default=True)
DATASET_CHECK_TOKENIZER = env_str("DATASET_CHECK_TOKENIZER")
# Requests a minute by one signed link, 0 for no limit: downloaders that resume make many.
LINK_REQUESTS_PER_MINUTE = env_int("LINK_REQUESTS_PER_MINUTE", 120)
# Hosts that datasets may be pushed to, as in LLM_HOSTS; the endpoint and its token.
HUB_HOSTS = env_list("HUB_HOSTS", [])
HF_ENDPOINT = env_str("HF_ENDPOINT", "https://huggingface.co")
HF_TOKEN = env_str("HF_TOKEN")

# Security -----------------------------------------------------------------------------------

HTTPS = env_bool("HTTPS", default=False)
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = SECURE_SSL_REDIRECT = HTTPS
SECURE_REDIRECT_EXEMPT = ["^healthz$", "^readyz$"]
SECURE_HSTS_SECONDS = 60 * 60 * 24 * 365 if HTTPS else 0
SECURE_REFERRER_POLICY = "same-origin"
SESSION_COOKIE_SAMESITE = CSRF_COOKIE_SAMESITE = "Lax"
X_FRAME_OPTIONS = "DENY"
if env_bool("BEHIND_PROXY", default=False):
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    ALLAUTH_TRUSTED_PROXY_COUNT = 1
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": [NONE],
        "script-src": [SELF],
        "style-src": [SELF],
        # data: is the one-time QR code of two-factor set-up; remote images are never allowed.
        "img-src": [SELF, "data:"],
        "font-src": [SELF],
        "connect-src": [SELF],
        "form-action": [SELF],
        "frame-ancestors": [NONE],
        "base-uri": [NONE],
    }
}

# Language, time, logging --------------------------------------------------------------------

LANGUAGE_CODE = "en-us"
USE_I18N = False
USE_TZ = True
TIME_ZONE = "UTC"
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(name)s: %(message)s"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["stderr"], "level": env_str("LOG_LEVEL", "INFO")},
}
