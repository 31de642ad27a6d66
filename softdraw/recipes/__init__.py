"""Recipes: whole programs that are small enough to read, one folder each; ``softdraw train NAME`` runs one.

``runs`` is what any recipe needs to be trained, stopped, continued and compared; it knows none of them, and
``runs.recipe`` is the contract. Read a recipe in the order ``settings``, ``data``, ``model``, ``loop``.
"""
