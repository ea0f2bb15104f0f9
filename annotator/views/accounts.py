"""One's own account: preferences and API tokens. Sign-in itself is django-allauth's."""

from __future__ import annotations

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_POST

from annotator.errors import AppError
from annotator.forms.accounts import PreferencesForm, TokenForm
from annotator.services import tokens as api_tokens


@require_http_methods(["GET", "POST"])
@login_required
def preferences(request: HttpRequest) -> HttpResponse:
    """Name, single keys, theme; the list of API tokens."""
    form = PreferencesForm(request.POST or None, instance=request.user)
    if request.method == "POST" and form.is_valid():
        form.save()
        messages.success(request, "Saved.")
        return redirect("preferences")
    return _show(request, form=form, status=422 if form.errors else 200)


@require_POST
@login_required
@never_cache
def tokens(request: HttpRequest) -> HttpResponse:
    """Make a token and show it, this once."""
    form = TokenForm(request.POST)
    if not form.is_valid():
        return _show(request, token_form=form, status=422)
    try:
        token, secret = api_tokens.create(user=request.user, name=form.cleaned_data["name"])
    except AppError as error:
        form.add_error(None, f"{error.message} {error.advice}".strip())
        return _show(request, token_form=form, status=error.status)
    return _show(request, made=token, secret=secret)


@require_POST
@login_required
def revoke_token(request: HttpRequest, token_id: int) -> HttpResponse:
    token = get_object_or_404(request.user.api_tokens, pk=token_id)
    api_tokens.revoke(token=token)
    messages.success(request, f"The token “{token.name}” no longer works.")
    return redirect("preferences")


def _show(
    request: HttpRequest,
    *,
    form: PreferencesForm | None = None,
    token_form: TokenForm | None = None,
    status: int = 200,
    **context: object,
) -> HttpResponse:
    context |= {
        "form": form or PreferencesForm(instance=request.user),
        "token_form": token_form or TokenForm(),
        "tokens": request.user.api_tokens.filter(revoked_at=None).order_by("-pk"),
    }
    return render(request, "account/preferences.html", context, status=status)
