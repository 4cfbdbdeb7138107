"""Tables as plain values: columns, sections, footnotes."""
