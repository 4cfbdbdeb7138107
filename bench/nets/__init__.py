"""Backbones: feature extractor and linear head; the caller chooses the normalisation."""
