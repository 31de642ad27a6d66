"""Recipes: whole programs that are small enough to read. ``softdraw train`` runs this one, a discrete autoencoder.

Read it in the order ``settings``, ``data``, ``model``, ``loop``; ``ranks``, ``folder`` and ``pictures`` serve it.
"""
