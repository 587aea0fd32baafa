"""One module per hub: its handles, its official client, its failures in our words."""
