"""Methods that merge the teachers' weights into one network."""
