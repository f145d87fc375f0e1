"""The door: one file per subcommand of `hpcgeo`."""
