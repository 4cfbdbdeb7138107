"""PURER (CVPR 2023, arXiv 2303.11183), one file per part of the method."""
