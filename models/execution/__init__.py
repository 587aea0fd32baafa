"""How a backbone is run on a device: one file a lever, `apply` turns them on."""
