"""Figures: each is one function of a data frame; `build` says which a set of records has."""
