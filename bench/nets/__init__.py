"""Backbones: a feature extractor and a linear head, with the normalisation chosen by the caller."""
