"""Records as rows: reading, selection and grouping, for tables and figures."""
