"""Records in; tables out. Never trains, never imports torch."""
