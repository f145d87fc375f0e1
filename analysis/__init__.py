"""The scaling report: records in, HTML, Markdown, CSV and figures out (installed as hpcgeo_analysis)."""
