"""Draws from logits whose categories are split over ranks: the result of the whole row, and no row is gathered."""
