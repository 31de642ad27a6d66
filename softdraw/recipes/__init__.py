"""Recipes: whole programs that are small enough to read, one folder each. ``softdraw train`` runs the autoencoder.

``runs`` is what any recipe needs to be trained, stopped, continued and compared; it knows none of them.
Read the autoencoder in the order ``settings``, ``data``, ``model``, ``loop``.
"""
