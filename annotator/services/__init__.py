"""Writing. One module per noun, functions are verbs; each opens its own transaction."""
