import os
from pathlib import Path

HERE = Path(__file__).parent

SECRET_KEY = os.environ["SESSION_SECRET"]
# The server of "runserver" gives out the static files only then.
DEBUG = True
ALLOWED_HOSTS = ["127.0.0.1", "localhost"]
ROOT_URLCONF = "site_urls"
DATABASE = os.environ.get("DATABASE", HERE / "db.sqlite3")
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": DATABASE}}
INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
]
TEMPLATES = [{"BACKEND": "django.template.backends.django.DjangoTemplates", "DIRS": [HERE / "templates"],
              "OPTIONS": {"context_processors": ["django.template.context_processors.request"]}}]
STATIC_URL = "/static/"
STATICFILES_DIRS = [HERE / "static", ("modules", HERE / "node_modules")]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

# The API key is public. Without a host, the SDK comes from Velt.
VELT = {
    "apiKey": os.environ.get("VELT_API_KEY", ""),
    "proxyDomain": os.environ.get("VELT_SDK_HOST", ""),
}
