"""A Django app with sessions and users of its own, and with the lines of docs/logins/own-session.md, which are in the
file that is its argument. POST /login signs the user of the query in, POST /logout out. Prints its port."""

import json
import sys
import threading
import types
from pathlib import Path
from wsgiref.simple_server import WSGIRequestHandler, make_server

import django
from django.conf import settings
from django.core.management import call_command
from django.core.wsgi import get_wsgi_application
from django.http import JsonResponse
from django.urls import path

MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "velt.name_the_user",
]

settings.configure(
    ALLOWED_HOSTS=["*"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions"],
    MIDDLEWARE=MIDDLEWARE,
    ROOT_URLCONF=__name__,
    SECRET_KEY="secret of the test",
    USE_TZ=True,
)
django.setup()

from django.contrib.auth import login, logout  # noqa: E402  (needs the settings)
from django.contrib.auth.models import User  # noqa: E402

velt = types.ModuleType("velt")
sys.modules["velt"] = velt
exec(compile(Path(sys.argv[1]).read_text(), sys.argv[1], "exec"), velt.__dict__)


def sign_in(request):
    user, _ = User.objects.get_or_create(username=request.GET["user"])
    login(request, user, backend="django.contrib.auth.backends.ModelBackend")
    return JsonResponse({"signed": "in", "id": str(user.pk)})


def sign_out(request):
    logout(request)
    return JsonResponse({"signed": "out"})


def page(request):
    return JsonResponse({"page": "of the app"})


urlpatterns = [
    path("login", sign_in),
    path("logout", sign_out),
    path("page", page),
    path("api/me", velt.me),
]


class Quiet(WSGIRequestHandler):
    def log_message(self, *_):
        pass


def end_with_the_test():
    sys.stdin.read()
    server.shutdown()


# Users are in memory, where one thread alone sees them; so the server has one.
call_command("migrate", verbosity=0)
server = make_server("127.0.0.1", 0, get_wsgi_application(), handler_class=Quiet)
print(json.dumps({"port": server.server_port}), flush=True)
threading.Thread(target=end_with_the_test, daemon=True).start()
server.serve_forever()
