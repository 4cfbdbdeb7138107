"""Records as rows: read, selected, grouped; what tables and figures are made from."""
