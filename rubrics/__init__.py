"""Rubrics: criteria, generators, judges and verifiers. Knows nothing of Django or torch."""
