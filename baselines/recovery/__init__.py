"""Methods that recover images from teachers with a generator and meta-train on them."""
