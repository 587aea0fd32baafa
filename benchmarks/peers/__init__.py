"""Other libraries and servers, each in an environment of its own, to measure ours beside them."""
