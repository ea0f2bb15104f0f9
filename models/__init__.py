"""Preference statistics in numpy and reward models in torch. Knows nothing of Django.

Importing this package is cheap: torch is imported only inside ``models.neural``, which is
reached through ``models.gateway``.
"""
