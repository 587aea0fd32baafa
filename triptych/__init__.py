"""The command `triptych`: the command line, and the supervisor that runs everything on one host."""
