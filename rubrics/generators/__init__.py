"""Generators of rubrics: methods that turn preferences into criteria people can read.

``types`` says what each is given and gives.
"""
