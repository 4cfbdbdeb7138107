"""Reading images: folders, archives, decoding, pixels, class splits."""
