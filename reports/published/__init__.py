"""Published figures with source and grade; `reports.tables.build.reproduction` reads them."""
