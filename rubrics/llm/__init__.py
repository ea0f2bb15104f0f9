"""Calls to language models: one client, its cache and ledger, limits, budgets, tolerant parsing."""
