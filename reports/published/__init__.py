"""Published figures with source and grade; `reports.reproduction` reads them."""
