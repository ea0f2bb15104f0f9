"""What the sign-in pages ask about accounts."""

from __future__ import annotations

from allauth.account.adapter import get_adapter
from django import template
from django.template.context import Context

register = template.Library()


@register.simple_tag(takes_context=True)
def signup_is_open(context: Context) -> bool:
    """Whether whoever looks at this page may create an account."""
    request = context["request"]
    return bool(get_adapter(request).is_open_for_signup(request))
