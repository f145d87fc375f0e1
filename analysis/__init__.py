"""The scaling report: records in; HTML, Markdown, CSV and figures out."""
