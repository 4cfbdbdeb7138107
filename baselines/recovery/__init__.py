"""Images recovered from teachers by a generator, then meta-training on them."""
