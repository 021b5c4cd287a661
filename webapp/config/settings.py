"""All settings, read from the environment. The same for both ways to run.

Without any variable this is the embedded profile: SQLite and Valkey below
``MIEN_HOME``. ``MIEN_DEMO=1``, which ``make run`` sets and a public site must not,
makes a secret of its own, serves plain HTTP and seeds demo people.
"""

from __future__ import annotations

import secrets
import socket
from contextlib import suppress
from pathlib import Path

from celery.schedules import schedule
from django.core.exceptions import ImproperlyConfigured

from ml.images import MAX_BYTES
from webapp.config import env

BASE_DIR = Path(__file__).resolve().parent.parent.parent

# --- The instance ---------------------------------------------------------------
MIEN_HOME = env.folder("MIEN_HOME", BASE_DIR / "var")
DEMO = env.flag("MIEN_DEMO")
DEBUG = env.flag("MIEN_DEBUG")
MIN_SECRET_KEY_LENGTH = 50


def _secret_key() -> str:
    """From the environment; a demo keeps one that it drew itself in its home."""
    if not (DEMO or DEBUG):
        key = env.text("MIEN_SECRET_KEY")
        if len(key) < MIN_SECRET_KEY_LENGTH:
            raise ImproperlyConfigured(
                f"MIEN_SECRET_KEY must have {MIN_SECRET_KEY_LENGTH} characters or "
                "more. Draw one: python -c 'import secrets; "
                "print(secrets.token_urlsafe(50))'"
            )
        return key
    value = env.text("MIEN_SECRET_KEY", "")
    if value:
        return value
    path = MIEN_HOME / "secret_key"
    try:
        value = _drawn_secret_key(path)
    except (OSError, UnicodeDecodeError) as error:
        raise ImproperlyConfigured(f"{path} cannot be used: {error}") from error
    if not value:
        raise ImproperlyConfigured(f"{path} is empty. Remove it: a new one is drawn.")
    return value


def _drawn_secret_key(path: Path) -> str:
    MIEN_HOME.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        beside = path.with_name(f".secret_key.{secrets.token_hex(4)}")
        try:
            beside.touch(mode=0o600)
            beside.write_text(secrets.token_urlsafe(50), encoding="utf-8")
            # A link, not a rename: of two that start at once the first one wins.
            with suppress(FileExistsError):
                path.hardlink_to(beside)
        finally:
            beside.unlink(missing_ok=True)
    return path.read_text(encoding="utf-8").strip()


SECRET_KEY = _secret_key()
ALLOWED_HOSTS = env.hosts(
    "MIEN_ALLOWED_HOSTS", "127.0.0.1,localhost,[::1]" if DEMO or DEBUG else ""
)
CSRF_TRUSTED_ORIGINS = env.origins("MIEN_TRUSTED_ORIGINS")

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    # Before staticfiles, so that WhiteNoise serves in every mode alike.
    "whitenoise.runserver_nostatic",
    "django.contrib.staticfiles",
    "rest_framework",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "django_htmx",
    "axes",
    "django_celery_beat",
    "webapp.core",
    "webapp.accounts",
    "webapp.registry",
    "webapp.photos",
    "webapp.curation",
    "webapp.training",
    "webapp.operations",
    "webapp.config",
]

MIDDLEWARE = [
    "webapp.core.logs.RequestLogMiddleware",
    "webapp.core.middleware.HeadMiddleware",
    "webapp.core.middleware.ProbeMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "webapp.core.middleware.ContentSecurityPolicyMiddleware",
    "webapp.core.middleware.UnlistedMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "webapp.core.middleware.ErrorPagesMiddleware",
    "webapp.core.middleware.RequestSizeMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
    "axes.middleware.AxesMiddleware",
]

ROOT_URLCONF = "webapp.config.urls"
WSGI_APPLICATION = "webapp.config.wsgi.application"
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
        },
    },
]

# --- People -----------------------------------------------------------------------
AUTH_USER_MODEL = "accounts.User"
AUTHENTICATION_BACKENDS = [
    "webapp.accounts.log_ins.LogInBackend",
    "django.contrib.auth.backends.ModelBackend",
]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in (
        "UserAttributeSimilarityValidator",
        "MinimumLengthValidator",
        "CommonPasswordValidator",
        "NumericPasswordValidator",
    )
]
LOGIN_URL = "accounts:login"
LOGIN_REDIRECT_URL = "photos:home"
LOGOUT_REDIRECT_URL = "photos:home"
AXES_FAILURE_LIMIT = 5
AXES_COOLOFF_TIME = 0.25  # hours
AXES_LOCKOUT_PARAMETERS = [["username", "ip_address"]]
AXES_RESET_ON_SUCCESS = True
# The same address that rates are counted by: behind a proxy, not the proxy's own.
AXES_CLIENT_IP_CALLABLE = "webapp.core.rates.log_in_address"
AXES_HANDLER = "webapp.accounts.log_ins.LogInRecord"
# Its own would let an admin delete what stands against them.
AXES_ENABLE_ADMIN = False
AXES_LOCKOUT_CALLABLE = "webapp.accounts.views.locked_out"

# --- Database, files, broker, cache -------------------------------------------------
DATABASES = {
    "default": env.database(
        env.with_password(
            env.url(
                "MIEN_DATABASE_URL",
                f"sqlite:///{env.path_in_url(MIEN_HOME / 'mien.sqlite3')}",
            ),
            env.text("MIEN_DATABASE_PASSWORD", ""),
        )
    )
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

MEDIA_ROOT = MIEN_HOME / "media"
STATIC_URL = "static/"
STATIC_ROOT = MIEN_HOME / "static"
STATICFILES_DIRS = [BASE_DIR / "static"]
STORAGES = {
    "default": env.storage(env.url("MIEN_STORAGE_URL", "")),
    "staticfiles": {"BACKEND": "webapp.core.storage.StaticFilesStorage"},
}
WHITENOISE_USE_FINDERS = DEBUG

BROKER_URL = env.with_password(
    env.url(
        "MIEN_BROKER_URL",
        f"redis+socket://{env.path_in_url(MIEN_HOME / 'valkey.sock')}",
    ),
    env.text("MIEN_BROKER_PASSWORD", ""),
)
CACHE_URL = env.cache(env.url("MIEN_CACHE_URL", "") or env.cache_beside(BROKER_URL))
CACHES = {
    "default": {
        "BACKEND": "django.core.cache.backends.redis.RedisCache",
        "LOCATION": CACHE_URL,
        "KEY_PREFIX": "mien",
        "OPTIONS": {"socket_timeout": 1, "socket_connect_timeout": 1},
    }
}

# --- Celery: the database knows what is owed, a message only wakes somebody up ------
CELERY_BROKER_URL = BROKER_URL
CELERY_TASK_DEFAULT_QUEUE = "default"
CELERY_TASK_ROUTES = {
    "webapp.photos.tasks.process_photo": {"queue": "inference"},
    "webapp.training.tasks.*": {"queue": "training"},
}
# JSON alone: a message can name a photo, and never carry code.
CELERY_TASK_SERIALIZER = "json"
CELERY_ACCEPT_CONTENT = ["json"]
# Results stand in our tables; nobody reads them from the broker.
CELERY_TASK_IGNORE_RESULT = True
CELERY_RESULT_BACKEND = None
# A worker that dies gives its message back, rather than taking it along.
CELERY_TASK_ACKS_LATE = True
CELERY_TASK_REJECT_ON_WORKER_LOST = True
# No worker hoards messages that an idle one could take.
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
# A model that hangs is interrupted, and a process that ignores that is killed.
CELERY_TASK_SOFT_TIME_LIMIT = 20
CELERY_TASK_TIME_LIMIT = 30
# A worker outlives its broker, however long that is away.
CELERY_BROKER_CONNECTION_MAX_RETRIES = None
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
# Nor does it end at a broker that is full, cannot persist or has become a replica.
CELERY_BROKER_CHANNEL_ERROR_RETRY = True
CELERY_BROKER_TRANSPORT_OPTIONS = {
    # After SIGKILL a message comes back after this long; the default is an hour.
    "visibility_timeout": 60,
    # How often a worker looks for such messages; the defaults make it 100 s.
    "unacked_restore_interval": 2,
    "unacked_restore_throttle": 2,
    # A web request must not wait for a broker that is away.
    "socket_timeout": 1,
    "socket_connect_timeout": 1,
    "max_retries": 1,
    "interval_start": 0,
    # A worker waits for its next message on a connection that says nothing. Without
    # these it notices minutes late that the other end has gone, or come back.
    "socket_keepalive": True,
    "socket_keepalive_options": {
        getattr(socket, name): value
        for name, value in (
            ("TCP_KEEPIDLE", 5),
            ("TCP_KEEPINTVL", 2),
            ("TCP_KEEPCNT", 3),
            ("TCP_USER_TIMEOUT", 10_000),
        )
        if hasattr(socket, name)
    },
}
# A connection to the database lives through many jobs; ``close_old_connections``
# before each sees to those that are too old or broken.
CELERY_DB_REUSE_MAX = 1_000_000_000
# Publish once: what does not go out, the sweeper finds in the database.
CELERY_TASK_PUBLISH_RETRY = False
# Loading two networks takes longer than the default four seconds on a busy host.
CELERY_WORKER_PROC_ALIVE_TIMEOUT = 60
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_TIMEZONE = "UTC"
CELERY_BEAT_SCHEDULER = "webapp.config.schedule:QuickScheduler"
# The default looks at the schedule every five seconds, too seldom for the sweep.
CELERY_BEAT_MAX_LOOP_INTERVAL = 1
CELERY_BEAT_SCHEDULE = {
    "sweep-photos": {
        "task": "webapp.photos.tasks.sweep_photos",
        "schedule": schedule(1.0),
        # A sweep that nobody took in time is void: the next one is on its way.
        "options": {"expires": 4.0, "queue": "default"},
    },
    "erase-expired-photos": {
        "task": "webapp.photos.tasks.erase_expired_photos",
        "schedule": schedule(60.0),
        "options": {"expires": 60.0, "queue": "default"},
    },
    "fill-queue": {
        "task": "webapp.curation.tasks.fill_queue",
        "schedule": schedule(15.0),
        "options": {"expires": 15.0, "queue": "default"},
    },
    "reorder-queue": {
        "task": "webapp.curation.tasks.reorder_queue",
        "schedule": schedule(300.0),
        "options": {"expires": 300.0, "queue": "default"},
    },
    "weigh-people": {
        "task": "webapp.curation.tasks.weigh_people",
        "schedule": schedule(300.0),
        "options": {"expires": 300.0, "queue": "default"},
    },
    "sweep-dataset-imports": {
        "task": "webapp.curation.tasks.sweep_dataset_imports",
        "schedule": schedule(30.0),
        "options": {"expires": 30.0, "queue": "default"},
    },
    "summarise-hours": {
        "task": "webapp.operations.tasks.summarise_hours",
        "schedule": schedule(120.0),
        "options": {"expires": 120.0, "queue": "default"},
    },
    "sweep-training-runs": {
        "task": "webapp.training.tasks.sweep_runs",
        "schedule": schedule(3.0),
        "options": {"expires": 6.0, "queue": "default"},
    },
    "promote-what-was-missed": {
        "task": "webapp.training.tasks.promote_what_was_missed",
        "schedule": schedule(60.0),
        "options": {"expires": 60.0, "queue": "default"},
    },
    "mark-gone-faces": {
        "task": "webapp.training.tasks.mark_gone_faces",
        "schedule": schedule(60.0),
        "options": {"expires": 60.0, "queue": "default"},
    },
    "train-when-enough": {
        "task": "webapp.training.tasks.train_when_enough",
        "schedule": schedule(30.0),
        "options": {"expires": 30.0, "queue": "default"},
    },
    "read-again": {
        "task": "webapp.training.tasks.read_again",
        "schedule": schedule(10.0),
        "options": {"expires": 10.0, "queue": "default"},
    },
    "measure-drift": {
        "task": "webapp.training.tasks.measure_drift",
        "schedule": schedule(1800.0),
        "options": {"expires": 1800.0, "queue": "default"},
    },
    "remove-orphan-files": {
        "task": "webapp.photos.tasks.remove_orphan_files",
        "schedule": schedule(600.0),
        "options": {"expires": 600.0, "queue": "default"},
    },
}

# --- Web --------------------------------------------------------------------------
# A body may be one photo and the few words around it; where several may come, more.
REQUEST_MAX_BYTES = MAX_BYTES + 64 * 1024
# One photo never touches the disk before it is re-encoded; several may, in files that
# have no name and so do not outlive the process.
FILE_UPLOAD_MAX_MEMORY_SIZE = REQUEST_MAX_BYTES
FILE_UPLOAD_HANDLERS = [
    "django.core.files.uploadhandler.MemoryFileUploadHandler",
    "webapp.core.uploads.UnnamedFileUploadHandler",
]
DATA_UPLOAD_MAX_MEMORY_SIZE = 1024 * 1024
# More than may be sent, so that the form can say how many may.
DATA_UPLOAD_MAX_NUMBER_FILES = 200
REQUEST_MAX_BYTES_AT = dict.fromkeys(
    ("/photos/", "/api/v1/batches"), 100 * 1024 * 1024 + 64 * 1024
)

# How many proxies' entries in X-Forwarded-For are to be believed.
NUM_PROXIES = env.integer("MIEN_NUM_PROXIES", 0, maximum=100)

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "webapp.accounts.authentication.ApiKeyAuthentication",
        "rest_framework.authentication.SessionAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": [],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["webapp.core.api.JSONParser"],
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "EXCEPTION_HANDLER": "webapp.core.api.exception_handler",
    "NUM_PROXIES": NUM_PROXIES,
    # Asked for by ?version=, and then part of a file's name in a header.
    "ALLOWED_VERSIONS": ["1"],
}
SPECTACULAR_SETTINGS = {
    "TITLE": "Mien",
    "DESCRIPTION": "The emotion of every face in a photo.",
    "VERSION": "1",
    "SERVE_INCLUDE_SCHEMA": False,
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "REDOC_DIST": "SIDECAR",
    "COMPONENT_SPLIT_REQUEST": True,
    "POSTPROCESSING_HOOKS": [
        "drf_spectacular.hooks.postprocess_schema_enums",
        "webapp.core.api.describe_common_errors",
    ],
}

SECURE = env.flag("MIEN_HTTPS", default=not (DEMO or DEBUG))
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = SECURE
SESSION_COOKIE_HTTPONLY = CSRF_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = CSRF_COOKIE_SAMESITE = "Lax"
SECURE_SSL_REDIRECT = SECURE
# Asked from inside, by address and without TLS.
PROBES = ("/livez", "/readyz", "/metrics")
SECURE_REDIRECT_EXEMPT = [f"^{path[1:]}$" for path in PROBES]
SECURE_HSTS_SECONDS = 31_536_000 if SECURE else 0
SECURE_HSTS_INCLUDE_SUBDOMAINS = SECURE_HSTS_PRELOAD = SECURE
SECURE_CONTENT_TYPE_NOSNIFF = True
SECURE_REFERRER_POLICY = "same-origin"
SECURE_CROSS_ORIGIN_OPENER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"
CSRF_FAILURE_VIEW = "webapp.core.views.csrf_failure"
BEHIND_TLS_PROXY = env.flag("MIEN_BEHIND_TLS_PROXY")
if BEHIND_TLS_PROXY:
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
if DEMO and (
    SECURE
    or BEHIND_TLS_PROXY
    or NUM_PROXIES
    or not all(map(env.is_own_machine, ALLOWED_HOSTS))
):
    raise ImproperlyConfigured(
        "MIEN_DEMO has known passwords: never serve it. Set MIEN_DEMO=0, or leave out "
        "MIEN_HTTPS, MIEN_BEHIND_TLS_PROXY, MIEN_NUM_PROXIES and the names of other "
        "machines in MIEN_ALLOWED_HOSTS."
    )

# --- Rates: for one browser and for one address; none where the text is empty --------
RATES_STORAGE_URL = CACHE_URL.replace("unix://", "redis+unix://", 1)
RATES = {
    "upload": env.rates(
        "MIEN_UPLOAD_RATE", "3000/minute" if DEMO else "120/minute;1500/hour"
    ),
    "live": env.rates("MIEN_LIVE_RATE", "1200/minute"),
    "flag": env.rates("MIEN_FLAG_RATE", "60/minute;300/hour"),
    # For an address alone, and all of an office may have one.
    "login": env.rates(
        "MIEN_LOGIN_RATE", "3000/minute" if DEMO else "30/minute;300/hour"
    ),
}

# --- Photos -----------------------------------------------------------------------
# An hour or more: what an hour brought is counted from the photos that still live.
PHOTO_RETENTION_SECONDS = env.integer("MIEN_PHOTO_RETENTION_SECONDS", 24 * 3600, 3600)

# What networks run on: auto (a GPU where there is one), cpu, or cuda (nothing else).
INFERENCE_PROVIDER = env.choice(
    "MIEN_INFERENCE_PROVIDER", "auto", ("auto", "cpu", "cuda")
)

# --- Curation ---------------------------------------------------------------------
# In which order faces are labelled: a name from webapp.curation.order.
CURATION_ORDER = env.choice(
    "MIEN_CURATION_ORDER",
    "teaches_most",
    ("teaches_most", "flags_first", "by_chance"),
)
# Of the faces that may be used, so many are labelled by chance alone, so that the
# accuracy on all of them can be told.
CURATION_SAMPLE_PERCENT = env.integer("MIEN_CURATION_SAMPLE_PERCENT", 5, maximum=100)
# New labels that make the next training worth while.
RETRAIN_AFTER_LABELS = env.integer("MIEN_RETRAIN_AFTER_LABELS", 50, 1)

# --- Training ---------------------------------------------------------------------
# The folder of the data set, where the training worker runs; full runs need it. Web
# is told the same, to know whether there is one, and does not look into it.
DATASET_DIR = env.text("FER_DATASET_DIR", "")
# Whether a candidate that the gate lets through serves without anybody's word.
AUTO_PROMOTE = env.flag("MIEN_AUTO_PROMOTE")

# --- Language, time, log ------------------------------------------------------------
LANGUAGE_CODE = "en"
USE_I18N = False
USE_TZ = True
TIME_ZONE = "UTC"
LOG_FORMAT = env.choice(
    "MIEN_LOG_FORMAT", "line" if DEMO or DEBUG else "json", ("line", "json")
)
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "filters": {
        "context": {"()": "webapp.core.logs.ContextFilter"},
        "routes": {"()": "webapp.core.logs.RouteFilter"},
    },
    "formatters": {
        "line": {
            "format": "{asctime} {levelname} {name}{context}: {message}",
            "style": "{",
        },
        "json": {"()": "webapp.core.logs.OneLineJson"},
    },
    "handlers": {
        "console": {
            "class": "logging.StreamHandler",
            "formatter": LOG_FORMAT,
            "filters": ["context", "routes"],
        }
    },
    "root": {
        "handlers": ["console"],
        "level": env.choice(
            "MIEN_LOG_LEVEL", "INFO", ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
        ),
    },
    "loggers": {
        # Without the handlers that Django gives it, which would tell addresses; so
        # would the line for each request of its own server.
        "django": {"level": "INFO"},
        "django.server": {"level": "CRITICAL"},
        # One line a task or beat is too many when the sweep runs every second.
        "celery.app.trace": {"level": "WARNING"},
        "celery.worker.strategy": {"level": "WARNING"},
        "celery.beat": {"level": "WARNING"},
        "django_celery_beat": {"level": "WARNING"},
        "axes": {"level": "WARNING"},
        # One line a request and a photo is for programs; people see what went wrong.
        "webapp.jobs": {"level": "INFO" if LOG_FORMAT == "json" else "WARNING"},
        "webapp.requests": {"level": "INFO" if LOG_FORMAT == "json" else "WARNING"},
    },
}

# --- Operations -------------------------------------------------------------------
# Who may read /metrics; nobody where it is empty.
METRICS_TOKEN = env.text("MIEN_METRICS_TOKEN", "")
# Where a worker tells its own figures; nowhere where it is 0.
METRICS_PORT = env.integer("MIEN_METRICS_PORT", 0, maximum=65_535)
# A file that a worker or the beat touches for as long as it is well.
ALIVE_FILE = env.text("MIEN_ALIVE_FILE", "")
