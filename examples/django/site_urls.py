import json
import re

from django.conf import settings
from django.contrib.auth import login, logout
from django.contrib.auth.models import User
from django.http import HttpResponse, HttpResponseBadRequest, JsonResponse
from django.shortcuts import redirect, render
from django.urls import path
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST


@never_cache
def me(request):
    """Says who is signed in, to the page and to the sidecar: so both give Velt the same user and organization."""
    if not request.user.is_authenticated:
        return JsonResponse({})
    # The primary key stays the same where a name may change.
    user = {"userId": str(request.user.pk), "organizationId": "acme", "name": request.user.get_username()}
    return JsonResponse(user)


@require_POST
def sign_in(request):
    name = request.POST.get("user", "").strip()
    if not re.fullmatch("[a-z0-9]{1,40}", name):
        return HttpResponseBadRequest("a user has letters a-z and digits")
    user, _ = User.objects.get_or_create(username=name)
    login(request, user)
    return redirect("/")


@require_POST
def sign_out(request):
    logout(request)
    return redirect("/")


def page_settings(request):
    return HttpResponse(f"export default {json.dumps(settings.VELT)};", content_type="text/javascript")


urlpatterns = [
    path("", lambda request: render(request, "index.html")),
    path("login", sign_in),
    path("logout", sign_out),
    path("api/me", me),
    path("settings.js", page_settings),
]
