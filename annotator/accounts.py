"""Who may sign up, as django-allauth asks it."""

from __future__ import annotations

from typing import Any

from allauth.account.adapter import DefaultAccountAdapter
from django.conf import settings
from django.http import HttpRequest

from annotator.errors import AppError

INVITATION_KEY = "invitation"  # session key: the token of an opened invitation link


class AccountAdapter(DefaultAccountAdapter):
    def is_open_for_signup(self, request: HttpRequest) -> bool:
        return settings.OPEN_SIGNUP or _holds_open_invitation(request)

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


def _holds_open_invitation(request: HttpRequest) -> bool:
    """Whether the invitation opened in this session can still be used."""
    from annotator.services import members

    token = request.session.get(INVITATION_KEY)
    if not token:
        return False
    try:
        members.open_invitation(token)
    except AppError:
        return False
    return True
