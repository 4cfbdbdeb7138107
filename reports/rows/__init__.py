"""Records as rows of tables: results of a row and setting, groups, families of protocols."""
