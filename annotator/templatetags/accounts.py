"""What the sign-in pages ask about accounts."""

from __future__ import annotations

from allauth.account.adapter import get_adapter
from django import template
from django.conf import settings
from django.forms import BoundField
from django.template.context import Context
from django.utils.safestring import SafeString

register = template.Library()


@register.simple_tag(takes_context=True)
def signup_is_open(context: Context) -> bool:
    """Whether whoever looks at this page may create an account."""
    request = context["request"]
    return bool(get_adapter(request).is_open_for_signup(request))


@register.simple_tag
def mail_is_sent() -> bool:
    """Whether this server has a mail server: without one, mail ends in the server's log."""
    return not settings.EMAIL_BACKEND.endswith("console.EmailBackend")


@register.filter
def bare(field: BoundField) -> SafeString:
    """The control of a field without the placeholder that repeats its label."""
    return field.as_widget(attrs={"placeholder": False})


@register.filter
def sentence(text: str) -> str:
    """Title Case As django-allauth Has It, in the sentence case of the product."""
    words = str(text).split()
    kept = [word if word.isupper() and len(word) > 1 else word.lower() for word in words]
    return " ".join([word[:1].upper() + word[1:] for word in kept[:1]] + kept[1:])
