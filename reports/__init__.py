"""Reports: tables, figures and pages from records. Never trains, never imports torch."""
