"""How the bundled presets were made. Nothing imports this package; it imports `models`."""
