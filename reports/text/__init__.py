"""Tables as text: Markdown, LaTeX, CSV and terminal."""
