"""The demo set: written prompts and responses, and simulated raters who judge them."""
