"""Who may sign up, as django-allauth asks it."""

from __future__ import annotations

from typing import Any

from allauth.account.adapter import DefaultAccountAdapter
from django.conf import settings
from django.http import HttpRequest

INVITATION_KEY = "invitation"  # session key: the token of an opened invitation link


class AccountAdapter(DefaultAccountAdapter):
    def is_open_for_signup(self, request: HttpRequest) -> bool:
        return settings.OPEN_SIGNUP or INVITATION_KEY in request.session

    def get_login_redirect_url(self, request: HttpRequest) -> str:
        """Back to the invitation that led here, else to the projects."""
        from django.urls import reverse

        token = request.session.get(INVITATION_KEY)
        if token:
            return reverse("invitation", args=[token])
        return super().get_login_redirect_url(request)

    get_signup_redirect_url = get_login_redirect_url

    def save_user(self, request: HttpRequest, user: Any, form: Any, commit: bool = True) -> Any:
        user.name = form.cleaned_data.get("name", "")
        return super().save_user(request, user, form, commit)
