"""Figures: one module each, drawn from tables; `gallery.draw_all` draws those of a study and writes their captions."""
